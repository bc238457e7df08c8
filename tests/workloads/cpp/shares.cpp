/* SPDX-License-Identifier: Apache-2.0 */

/* Truth, in C++ names: 60 % geo::Circle::area(unsigned long) < geo::Shape::measure(unsigned long)
 * (called through a virtual function) < run_round(unsigned long) < main; 30 % geo::spin<unsigned
 * long, 3>(unsigned long) < geo::(anonymous namespace)::hidden(unsigned long) < run_round; 10 %
 * geo::Grid<int>::Cell::fill(unsigned long) < geo::Grid<int>::sweep(unsigned long) < run_round. */

#include "../c/work.h"

namespace geo
{

class Shape
{
      public:
	virtual ~Shape() = default;
	virtual void area(uint64_t units) = 0;
	WORK_NOINLINE void measure(uint64_t units);
};

void Shape::measure(uint64_t units)
{
	area(units);
	work_sink = work_sink + 1;
}

class Circle : public Shape
{
      public:
	WORK_NOINLINE void area(uint64_t units) override;
};

void Circle::area(uint64_t units)
{
	WORK_BODY(units, 0x1234567);
}

template <typename T, int N> WORK_NOINLINE T spin(T units)
{
	WORK_BODY(units, 0x2345670 + N);
	return units + N;
}

namespace
{
WORK_NOINLINE void hidden(uint64_t units)
{
	work_sink = work_sink + spin<unsigned long, 3>(units);
}
} // namespace

template <typename T> class Grid
{
      public:
	struct Cell {
		WORK_NOINLINE void fill(uint64_t units)
		{
			WORK_BODY(units, 0x3456713);
		}
	};

	WORK_NOINLINE void sweep(uint64_t units)
	{
		cell.fill(units);
		work_sink = work_sink + sizeof(T);
	}

      private:
	Cell cell;
};

} // namespace geo

WORK_NOINLINE void run_round(geo::Shape *shape, uint64_t unit)
{
	geo::Grid<int> grid;

	shape->measure(unit * 60);
	geo::hidden(unit * 30);
	grid.sweep(unit * 10);
	work_sink = work_sink + 1;
}

int main(int argc, char **argv)
{
	work_clock c = work_begin(work_seconds(argc, argv));
	geo::Circle circle;
	uint64_t unit;

	while ((unit = work_next(&c)))
		run_round(&circle, unit);
	work_report(&c);
	return 0;
}

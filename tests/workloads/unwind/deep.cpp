// SPDX-License-Identifier: Apache-2.0

// A C++ program as it is released: a recursion of 104 frames through templates and virtual functions, and exceptions
// that are thrown 20 frames below where they are caught. `throw` and `deep` choose one of them.

#include <stdexcept>
#include <string>
#include <vector>
#include "step.h"

namespace tower
{

struct node {
	virtual ~node() = default;
	virtual uint64_t climb(uint64_t units, int left) = 0;
};

STEP uint64_t leaf(uint64_t units)
{
	STEP_BODY(units, 0x1234567);
	return step_sink;
}

template <typename T> struct floor : node {
	std::vector<T> kept;
	node *next = nullptr;

	STEP uint64_t climb(uint64_t units, int left) override
	{
		uint64_t x;

		kept.assign(4, T(left));
		x = left > 1 ? next->climb(units, left - 1) : leaf(units);
		STEP_AFTER();
		return x + (uint64_t)kept[(size_t)left & 3];
	}
};

STEP void thrower(int n)
{
	std::string text(40, 'x');

	if (n > 1)
		thrower(n - 1);
	else
		throw std::runtime_error(text);
	STEP_AFTER();
}

STEP void catcher()
{
	try {
		thrower(20);
	} catch (const std::exception &e) {
		step_sink = (uint64_t)e.what()[0];
	}
}

STEP void ascend(node &n)
{
	step_sink = n.climb(STEP_UNITS * 4, 100);
}

} // namespace tower

int main(int argc, char **argv)
{
	tower::floor<int> a;
	tower::floor<long> b;
	bool throwing = argc > 2 && !strcmp(argv[1], "throw");

	a.next = &b;
	b.next = &a;
	step_begin(argc, argv);
	while (step_on()) {
		if (throwing)
			tower::catcher();
		else
			tower::ascend(a);
	}
	step_report("");
	return 0;
}

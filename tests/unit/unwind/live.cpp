// SPDX-License-Identifier: Apache-2.0

// A C++ program for live_test.c that never ends: exceptions through frames that clean up, virtual
// and indirect calls, the standard library's templates and its shared code.

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <regex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <unistd.h>

namespace
{
struct shape {
	virtual ~shape() = default;
	virtual double area(int depth) const = 0;
};

struct square : shape {
	double side;
	explicit square(double s) : side(s)
	{
	}
	double area(int depth) const override
	{
		if (depth == 0)
			throw std::runtime_error("no area at depth " + std::to_string(side));
		std::string kept =
			std::to_string(depth) + "a string that is too long to lie in its object";
		return area(depth - 1) + static_cast<double>(kept.size());
	}
};

[[gnu::noinline]] int thrown(int depth)
{
	std::unique_ptr<shape> s = std::make_unique<square>(depth);
	try {
		return static_cast<int>(s->area(depth));
	} catch (const std::exception &e) {
		return static_cast<int>(std::string(e.what()).size());
	}
}

[[gnu::noinline]] size_t matched(const std::string &text)
{
	static const std::regex expression("(a|b)*c([0-9]+)x?");
	std::smatch m;

	return std::regex_search(text, m, expression) ? m[2].str().size() : 0;
}

[[gnu::noinline]] size_t counted(int n)
{
	std::map<std::string, std::vector<int>> index;
	std::ostringstream out;

	for (int i = 0; i < n; i++)
		index[std::to_string((i * 7919) % 101)].push_back(i);
	for (auto &[key, list] : index) {
		std::sort(list.begin(), list.end(), [](int a, int b) { return a % 7 < b % 7; });
		out << key << ' ' << list.size() * 1.5 << '\n';
	}
	return out.str().size();
}
} // namespace

int main()
{
	std::vector<std::function<size_t(int)>> work = {
		[](int n) { return static_cast<size_t>(thrown(n % 20)); },
		[](int n) { return matched("ababababababac" + std::to_string(n) + "x"); },
		[](int n) { return counted(n % 300); },
	};
	volatile size_t sum = 0;

	alarm(60);
	for (int i = 0;; i = (i + 1) % 100000)
		sum = sum + work[static_cast<size_t>(i) % work.size()](i);
}

// SPDX-License-Identifier: Apache-2.0

// A C++ program as it is released: containers, sorting through callbacks, expressions, exceptions.

#include <algorithm>
#include <functional>
#include <map>
#include <regex>
#include <stdexcept>
#include <string>
#include <vector>

static size_t parsed(const std::string &text)
{
	static const std::regex line("([a-z]+)=([0-9]+);?");
	size_t sum = 0;

	for (std::sregex_iterator i(text.begin(), text.end(), line), end; i != end; ++i)
		sum += std::stoul((*i)[2]);
	if (sum % 3 == 0)
		throw std::out_of_range(text);
	return sum;
}

static size_t indexed(size_t seed)
{
	std::map<std::string, std::vector<size_t>> words;
	std::vector<std::pair<size_t, std::string>> order;
	size_t sum = 0;

	for (size_t i = 0; i < 400; i++)
		words[std::to_string((seed + i) * 7919 % 211)].push_back(i);
	for (auto &[word, places] : words)
		order.emplace_back(places.size() * 31 % 17, word);
	std::sort(order.begin(), order.end(), [](const auto &a, const auto &b) { return a > b; });
	for (auto &[n, word] : order)
		sum += n * word.size();
	return sum;
}

int main()
{
	std::vector<std::function<size_t(size_t)>> steps = {
		indexed,
		[](size_t n) {
			return parsed(
				"alpha=" + std::to_string(n) + ";beta=" + std::to_string(n / 2));
		},
	};
	volatile size_t sum = 0;

	for (size_t i = 0;; i++) {
		try {
			sum = sum + steps[i % steps.size()](i % 100000);
		} catch (const std::out_of_range &e) {
			sum = sum + std::string(e.what()).size();
		}
	}
}

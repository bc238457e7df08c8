#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""bigfile.py OUT [COPIES]: builds a C++ program with about a gigabyte of debug information, in a minute.

Three parts full of templates are compiled with -g3 as any large program is; each is then made free of symbols that others
see and linked so often that the size comes of it. Every copy has its code, its units and its line tables for itself."""

import os
import subprocess
import sys
import tempfile

PARTS = 3
HEADERS = """algorithm any deque functional future iostream map memory numeric optional regex set sstream string thread
unordered_map variant vector""".split()

BODY = """struct Item{i} {{ int key; std::string name; double weight[{room}]; bool operator<(const Item{i} &o) const {{ return key < o.key; }} }};
template <class T> struct Store{i} {{
	std::map<std::string, std::vector<T>> by_name;
	std::unordered_map<int, std::shared_ptr<T>> by_key;
	std::set<T> all;
	std::deque<std::optional<T>> queue;
	void add(const T &t) {{
		by_name[t.name].push_back(t);
		by_key.emplace(t.key, std::make_shared<T>(t));
		all.insert(t);
		queue.emplace_back(t);
	}}
	std::vector<T> sorted() const {{
		std::vector<T> v;
		for (auto &[name, list] : by_name) v.insert(v.end(), list.begin(), list.end());
		std::stable_sort(v.begin(), v.end());
		std::sort(v.begin(), v.end(), [](const T &a, const T &b) {{ return a.weight[0] < b.weight[0]; }});
		return v;
	}}
	std::function<double(const T &)> weigh(double by) const {{
		return [by, this](const T &t) {{ return std::accumulate(std::begin(t.weight), std::end(t.weight), by) * all.size(); }};
	}}
}};
double use{i}(int n) {{
	Store{i}<Item{i}> s;
	for (int j = 0; j < n; j++) s.add(Item{i}{{j, std::to_string(j * {room}), {{}}}});
	auto weigh = s.weigh(n);
	double d = 0;
	for (auto &t : s.sorted()) d += weigh(t);
	std::regex r("a{i}(b|c)*[d-f]+");
	std::ostringstream o;
	o << d << std::regex_replace(std::string("abcd"), r, "x");
	return d + o.str().size();
}}
"""


def source(part):
    out = [f"#include <{h}>\n" for h in HEADERS] + [f"namespace part{part} {{\n"]
    out += [BODY.format(i=i, room=part * 10 + i + 1) for i in range(6)]
    out.append("double run(int n) { auto f = std::async(std::launch::deferred, [n] { return use0(n); }); return f.get()")
    out += [f" + use{i}(n)" for i in range(6)]
    return "".join(out) + "; }\n}\n"


def must(*command, cwd):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command[0]}: {done.stderr[-600:]}")


def compile_part(folder, part):
    with open(os.path.join(folder, f"part{part}.cpp"), "w") as f:
        f.write(source(part))
    must("g++", "-std=c++17", "-O1", "-g3", "-fno-gnu-unique", "-c", f"part{part}.cpp", cwd=folder)
    must("ld", "-r", "--force-group-allocation", f"part{part}.o", "-o", "whole.o", cwd=folder)
    must("objcopy", "--keep-global-symbol=none", "whole.o", f"part{part}.o", cwd=folder)


def build(out, copies):
    with tempfile.TemporaryDirectory(dir=os.path.dirname(out) or ".") as folder:
        for part in range(PARTS):
            compile_part(folder, part)
        with open(os.path.join(folder, "main.cpp"), "w") as f:
            f.write("int main() { return 0; }\n")
        must("g++", "-o", "whole", "main.cpp", *[f"part{p}.o" for p in range(PARTS)] * copies, "-pthread", cwd=folder)
        os.rename(os.path.join(folder, "whole"), out)


if __name__ == "__main__":
    build(os.path.abspath(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 88)

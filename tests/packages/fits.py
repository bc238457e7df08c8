#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Whether distributions that cannot be run here have what the rpm requires: fits.py distributions.txt SBOM <REQUIRES

REQUIRES is what `rpm -qp --requires` says. A distribution's library fits where it is no older than the one that odi was linked
with (the SBOM has its version), as all of these keep their old symbols; or else where what is required of it has versions. No
such version may be of a later release than the distribution's. Cases as tests/run.sh reads them, one for each distribution.
"""
import json
import re
import sys

# Parts of glibc, and the library whose versions of symbols are counted apart from their releases.
GLIBC = re.compile(r"(ld-linux-x86-64|lib(dl|m|pthread|rt))\.so\.\d")
OWN_COUNT = ("libelf.so.1",)


def release(text):
    """1:1.2.11.dfsg-2 and JSONC_0.14 as numbers that compare."""
    return [int(n) for n in re.match(r"[0-9]+(\.[0-9]+)*", re.sub(r"^([0-9]+:|.*_)", "", text)).group().split(".")]


def read_table(path):
    with open(path) as f:
        head, *rows = [line.split() for line in f if line.strip() and not line.startswith("#")]
    for row in rows:
        assert len(row) == len(head), row
    return {row[0]: dict(zip(head[1:], row[1:])) for row in rows}


def read_built_with(path):
    with open(path) as f:
        packages = json.load(f)["packages"]
    return {p["comment"].split(":")[0]: p["versionInfo"] for p in packages if "comment" in p}


def read_required(lines):
    required = {}
    for soname, symbols in re.findall(r"^(\S+\.so[.0-9]*)\(([^)]*)\)", "".join(lines), re.M):
        required.setdefault("libc.so.6" if GLIBC.match(soname) else soname, set()).update({symbols} - {""})
    return required


def misfit(soname, symbols, have, built):
    comparable = set() if soname in OWN_COUNT else symbols
    newer = sorted(s for s in comparable if release(s) > release(have))
    if newer:
        return "%s is of %s, and lacks %s" % (soname, have, ", ".join(newer))
    if release(have) < release(built) and not comparable:
        return "%s is of %s, older than the %s that odi was linked with" % (soname, have, built)
    return None


table, built_with, required = read_table(sys.argv[1]), read_built_with(sys.argv[2]), read_required(sys.stdin)
failed = len(required) < 5 or not table
for name, has in table.items():
    unknown = [s for s in required if has.get(s) == "-"]
    problems = [s + " is not in the table" for s in required if s not in has]
    problems += filter(None, (misfit(s, required[s], has[s], built_with[s]) for s in required if has.get(s, "-") != "-"))
    for p in problems:
        print("# %s: %s" % (name, p), file=sys.stderr)
    note = ", but for %s, not found" % ", ".join(sorted(unknown)) if unknown else ""
    print("%s - %s has what the rpm requires, by its packages' versions%s" % ("not ok" if problems else "ok", name, note))
    failed = failed or bool(problems)
sys.exit(1 if failed else 0)

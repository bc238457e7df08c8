#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a package was made of, as SPDX 2.3 in JSON: sbom.py deb|rpm ARCHITECTURE VERSION NEWER_FOLDER OUT_FOLDER

Runs in the root where the package was built, after it. Three kinds of parts: our own files; what is linked
statically, with its exact version, since only a new build of ours mends it; and what is linked
dynamically, by the package it was built against, which the distribution mends. Sorted, and dated by
SOURCE_DATE_EPOCH, so that two builds give the same bytes.
"""
import datetime
import hashlib
import json
import os
import re
import subprocess
import sys

what, architecture, version, newer, out = sys.argv[1:]

# Loaded by name when it is needed, so no NEEDED entry tells of it.
LOADED_LATE = ["libcurl.so.4"]


def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, universal_newlines=True).stdout


def read(path):
    with open(path) as f:
        return f.read().strip()


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        for block in iter(lambda: f.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def spdx_id(*words):
    return "SPDXRef-" + "-".join(re.sub(r"[^A-Za-z0-9.-]", "-", w) for w in words)


def package(name, its_version, linkage, license_, supplier="Organization: Debian", purl=None):
    entry = {
        "SPDXID": spdx_id(linkage, name),
        "name": name,
        "versionInfo": its_version,
        "supplier": supplier,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": license_,
        "copyrightText": "NOASSERTION",
    }
    if purl:
        entry["externalRefs"] = [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl",
                                  "referenceLocator": purl}]
    return entry


def purl(name, its_version, suite):
    return "pkg:deb/debian/%s@%s?distro=%s" % (name, its_version.replace(":", "%3A").replace("+", "%2B"), suite)


def needed(folder):
    names = set(LOADED_LATE)
    for place, _, files in os.walk(folder):
        for f in files:
            path = os.path.join(place, f)
            if os.path.islink(path) or open(path, "rb").read(4) != b"\x7fELF":
                continue
            names |= set(re.findall(r"\(NEEDED\).*\[(.*)\]", run("readelf", "-dW", path)))
    return sorted(names)


def owner_of(soname):
    triplet = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[architecture]
    for folder in ("/lib/", "/usr/lib/"):
        path = folder + triplet + "/" + soname
        if os.path.exists(path):
            break
    else:
        return None
    for candidate in (path, path.replace("/usr/lib/", "/lib/"), "/usr" + path):
        found = subprocess.run(["dpkg-query", "-S", candidate], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                               universal_newlines=True).stdout
        if found:
            name = found.split(": ")[0].split(",")[0]
            return name.split(":")[0], run("dpkg-query", "-W", "-f", "${Version}", name)
    return None


def unpack():
    """The folder with what the package installs, and the package's file."""
    suffix = {"deb": "_%s.deb" % architecture, "rpm": ".rpm"}[what]
    files = [f for f in os.listdir(out) if f.endswith(suffix) and "dbgsym" not in f and "debug" not in f]
    assert len(files) == 1, files
    folder = out + "/../contents"
    subprocess.run(["rm", "-rf", folder], check=True)
    os.makedirs(folder)
    if what == "deb":
        subprocess.run(["dpkg-deb", "-x", out + "/" + files[0], folder], check=True)
    else:
        subprocess.run("rpm2cpio %s/%s | (cd %s && cpio -idm --quiet)" % (out, files[0], folder), shell=True,
                       check=True)
    return folder, out + "/" + files[0]


folder, path = unpack()
epoch = int(os.environ["SOURCE_DATE_EPOCH"])
own = package("odi", version, "Package", "Apache-2.0", "NOASSERTION")
own["packageFileName"] = os.path.basename(path)
own["checksums"] = [{"algorithm": "SHA256", "checksumValue": sha256(path)}]
packages, relations = [own], [["SPDXRef-DOCUMENT", "DESCRIBES", own["SPDXID"]]]

iberty = run("dpkg-query", "-W", "-f", "${Version}", "libiberty-dev:" + architecture)
static = [
    ("libbpf", read(newer + "/libbpf.version"), "trixie", "LGPL-2.1-only OR BSD-2-Clause"),
    ("libiberty", iberty, "bullseye", "LGPL-2.1-or-later"),
    ("bpftool", run("dpkg-query", "-W", "-f", "${Version}", "bpftool"), "bullseye", "GPL-2.0-only OR BSD-2-Clause"),
]
for name, its_version, suite, license_ in static:
    part = package(name, its_version, "Static", license_, purl=purl(name, its_version, suite))
    packages.append(part)
    relations.append([own["SPDXID"], "STATIC_LINK" if name != "bpftool" else "GENERATED_FROM", part["SPDXID"]])

for soname in needed(folder):
    found = owner_of(soname)
    if not found:
        sys.exit("sbom: no package of the root has " + soname)
    name, its_version = found
    part = package(name, its_version, "Dynamic", "NOASSERTION", purl=purl(name, its_version, "bullseye"))
    part["comment"] = soname + ": comes from the system that odi runs on; the version is the one it was built with"
    if all(p["SPDXID"] != part["SPDXID"] for p in packages):
        packages.append(part)
        relations.append([own["SPDXID"], "DYNAMIC_LINK", part["SPDXID"]])

files = []
for place, _, names in sorted(os.walk(folder)):
    for f in sorted(names):
        full = os.path.join(place, f)
        if os.path.islink(full):
            continue
        relative = os.path.relpath(full, folder)
        files.append({"SPDXID": spdx_id("File", relative), "fileName": "./" + relative,
                      "checksums": [{"algorithm": "SHA256", "checksumValue": sha256(full)}],
                      "licenseConcluded": "NOASSERTION", "copyrightText": "NOASSERTION"})
        relations.append([own["SPDXID"], "CONTAINS", files[-1]["SPDXID"]])

document = {
    "spdxVersion": "SPDX-2.3",
    "dataLicense": "CC0-1.0",
    "SPDXID": "SPDXRef-DOCUMENT",
    "name": os.path.basename(path),
    "documentNamespace": "urn:odi:%s:%s" % (os.path.basename(path), sha256(path)),
    "creationInfo": {
        "created": datetime.datetime.utcfromtimestamp(epoch).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "creators": ["Tool: odi packaging/sbom.py"],
    },
    "packages": packages,
    "files": files,
    "relationships": [{"spdxElementId": a, "relationshipType": t, "relatedSpdxElement": b} for a, t, b in relations],
}
with open(path + ".spdx.json", "w") as f:
    json.dump(document, f, indent=1, sort_keys=True)
    f.write("\n")
subprocess.run(["rm", "-rf", folder], check=True)

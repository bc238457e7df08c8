# SPDX-License-Identifier: Apache-2.0
"""Certificates for tests, made by openssl: an authority, and what it (or nobody) signed."""

import os
import subprocess

CONFIG = """
[ca]
default_ca = authority
[authority]
database = {folder}/index.txt
new_certs_dir = {folder}
serial = {folder}/serial
default_md = sha256
policy = any
unique_subject = no
copy_extensions = copy
[any]
commonName = supplied
"""


def openssl(*argv):
    r = subprocess.run(["openssl", *argv], capture_output=True, text=True)
    if r.returncode:
        raise AssertionError(f"openssl {' '.join(argv)}: {r.stderr}")


class Authority:
    """`ca` is its own certificate's path; leaf() answers the paths of a certificate and its key."""

    def __init__(self, folder):
        self.folder, self.ca, self.key = folder, os.path.join(folder, "ca.pem"), os.path.join(folder, "ca.key")
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
                "-subj", "/CN=odi test authority", "-out", self.ca, "-keyout", self.key)  # fmt: skip
        with open(os.path.join(folder, "index.txt"), "w"):
            pass
        with open(os.path.join(folder, "serial"), "w") as f:
            f.write("01\n")
        with open(os.path.join(folder, "ca.cnf"), "w") as f:
            f.write(CONFIG.format(folder=folder))

    def leaf(self, name, hosts=("DNS:localhost", "IP:127.0.0.1"), expired=False):
        cert, key, request = (os.path.join(self.folder, name + end) for end in (".pem", ".key", ".csr"))
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}",
                "-addext", "subjectAltName=" + ",".join(hosts), "-out", request, "-keyout", key)  # fmt: skip
        dates = ["-startdate", "20200101000000Z", "-enddate", "20210101000000Z"] if expired else ["-days", "20"]
        openssl("ca", "-batch", "-config", os.path.join(self.folder, "ca.cnf"), "-cert", self.ca, "-keyfile", self.key,
                "-in", request, "-out", cert, "-notext", *dates)  # fmt: skip
        return cert, key

    def self_signed(self, name):
        cert, key = (os.path.join(self.folder, name + end) for end in (".pem", ".key"))
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "20",
                "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-out", cert,
                "-keyout", key)  # fmt: skip
        return cert, key

"""Certificates for tests, made by openssl: an authority, a server for 127.0.0.1, a client."""

from __future__ import annotations

import subprocess
from pathlib import Path


class Certificates:
    """Files in a folder; `other_authority` signed nothing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.authority = self._authority("authority")
        self.other_authority = self._authority("other")
        self.server_cert, self.server_key = self._signed("server", "subjectAltName=IP:127.0.0.1")
        self.client_cert, self.client_key = self._signed("client", "")

    def _authority(self, name: str) -> Path:
        path = self._folder / f"{name}.crt"
        _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                 "-nodes", "-days", "2", "-subj", f"/CN={name}", "-out", path,
                 "-keyout", path.with_suffix(".key"),
                 "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        return path

    def _signed(self, name: str, extension: str) -> tuple[Path, Path]:
        path = self._folder / f"{name}.crt"
        key, request = path.with_suffix(".key"), path.with_suffix(".csr")
        more = ("-addext", extension) if extension else ()
        _openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                 "-subj", f"/CN={name}", "-keyout", key, "-out", request, *more)
        _openssl("x509", "-req", "-in", request, "-days", "2", "-CA", self.authority,
                 "-CAkey", self.authority.with_suffix(".key"), "-CAcreateserial", "-out", path,
                 "-copy_extensions", "copyall")
        return path, key


def _openssl(*arguments: object) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True,
                          check=False)
    if done.returncode:
        raise RuntimeError(f"openssl {arguments[0]}: {done.stderr}")

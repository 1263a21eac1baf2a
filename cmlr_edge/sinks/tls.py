"""Connections with TLS: whom an output trusts, who it says it is, and why a handshake failed."""

from __future__ import annotations

import re
import ssl
import time
from http.client import BadStatusLine, RemoteDisconnected, UnknownProtocol
from pathlib import Path

from cmlr_edge.errors import OutputError
from cmlr_edge.machine.clocks import local_time
from cmlr_edge.model.files import read_file

_BY_THE_CLOCK = {9, 10}  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
_SSL_ERROR = re.compile(r"\[SSL: (\w+)\]")


def tls_context(
    ca_file: Path | None = None, cert_file: Path | None = None, key_file: Path | None = None
) -> ssl.SSLContext:
    """What a connection is made with.

    Args:
        ca_file: PEM; the only authorities that are trusted then. None: those of the system.
        cert_file: PEM; how this program shows who it is.
        key_file: PEM; that certificate's key, without a passphrase. None: it is in `cert_file`.

    Raises:
        OutputError: A file cannot be used.
    """
    if key_file is not None and cert_file is None:
        raise OutputError(f"key_file {key_file} is given without cert_file: give both")
    try:
        if ca_file is not None:
            read_file(ca_file, 1)  # of a pipe OpenSSL would wait for the end
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as error:
        raise OutputError(f"ca_file {ca_file} cannot be used: {reason_of(error)}") from error
    if cert_file is not None:
        try:  # without a password OpenSSL would ask the terminal for one
            for file in (cert_file, key_file or cert_file):
                read_file(file, 1)
            context.load_cert_chain(cert_file, key_file, password="")
        except (OSError, ValueError) as error:
            raise OutputError(
                f"cert_file {cert_file} with key_file {key_file or cert_file} cannot be used: "
                f"{reason_of(error)}"
            ) from error
    return context


def reason_of(error: BaseException) -> str:
    """Why a connection, or the files for it, failed: one line for people."""
    if isinstance(error, ssl.SSLCertVerificationError):
        what_to_do = "see ca_file and the name"
        if error.verify_code in _BY_THE_CLOCK:
            what_to_do = f"by this machine's clock it is {local_time(time.time(), '%Y-%m-%d')}"
        return f"its certificate is not accepted: {error.verify_message}; {what_to_do}"
    if isinstance(error, ssl.SSLError):
        return _handshake_reason(error.reason or str(error))
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, (BadStatusLine, UnknownProtocol)) and not isinstance(
        error, RemoteDisconnected
    ):
        return "what answers there speaks no HTTP/1.1"  # and its bytes are for no log
    if found := _SSL_ERROR.search(str(error)):  # of a library that hands on the text alone
        return _handshake_reason(found[1])
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())


def _handshake_reason(name: str) -> str:
    said = name.replace("_", " ").lower()
    if "wrong version number" in said:
        return "it speaks no TLS at this port"
    if "alert" in said and ("certificate" in said or "unknown ca" in said):
        return f"it does not accept our certificate: {said}; see cert_file"
    return f"the TLS handshake failed: {said}"

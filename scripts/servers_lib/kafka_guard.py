"""The ports of a Kafka node, and those that want to know who comes: SASL, TLS, permissions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .tools import need, run

HOST = "127.0.0.1"
USERS = {"admin": "admin-secret", "stranger": "stranger-secret"}
"""Who may do everything, and who may do nothing before a test permits it."""
PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule required {users};"
SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
SETTINGS = """\
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:admin
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512
ssl.keystore.type=PEM
ssl.keystore.location={keys}
"""
"""Who comes to a port that asks nothing is ANONYMOUS: the tests' own administrator."""
DAYS = "30"
"""For which certificates hold."""
KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


class Listener(NamedTuple):
    """A port of a node, and the port that it tells its clients; 0 for one that has no clients."""

    name: str
    port: int
    advertised: int = 0
    protocol: str = "PLAINTEXT"


def said(listeners: Sequence[Listener]) -> dict[str, str]:
    """The three settings that say which ports there are."""
    told = [one for one in listeners if one.advertised]
    return {
        "listeners": ",".join(f"{one.name}://{HOST}:{one.port}" for one in listeners),
        "advertised": ",".join(f"{one.name}://{HOST}:{one.advertised}" for one in told),
        "protocols": ",".join(f"{one.name}:{one.protocol}" for one in listeners),
    }


class Guard:
    """Listeners with SASL, with TLS, and with both; who is no administrator may do nothing."""

    protocols = ("SASL_PLAINTEXT", "SASL_SSL", "SSL")
    ports = len(protocols)

    def listeners(self, ports: Sequence[int]) -> list[Listener]:
        """One for each protocol, of the same name."""
        pairs = zip(self.protocols, ports, strict=True)
        return [Listener(protocol, port, port, protocol) for protocol, port in pairs]

    @property
    def format(self) -> list[str]:
        """Arguments with which the data is formatted: users of SCRAM are in it."""
        scram = "SCRAM-SHA-512=[name={},password={}]"
        return [word for user in USERS.items() for word in ("--add-scram", scram.format(*user))]

    def settings(self, folder: Path) -> str:
        """What the file of settings says beside the listeners; makes keys and certificates."""
        self._certify(folder)
        users = " ".join(f'user_{name}="{password}"' for name, password in USERS.items())
        text = SETTINGS.format(keys=folder / "server.pem")
        for protocol in self.protocols[:2]:
            start = f"listener.name.{protocol.lower()}"
            text += f"{start}.plain.sasl.jaas.config={PLAIN.format(users=users)}\n"
            text += f"{start}.scram-sha-512.sasl.jaas.config={SCRAM}\n"
        return text

    def told(self, ports: Sequence[int], folder: Path) -> dict[str, object]:
        """What programs may want to know: addresses by protocol, the authority, the users."""
        hosts = [f"{HOST}:{port}" for port in ports]
        return {
            "listeners": dict(zip(self.protocols, hosts, strict=True)),
            "ca": str(folder / "ca.pem"),
            "users": USERS,
        }

    def _certify(self, folder: Path) -> None:
        """An authority, and a certificate of it for this node, with its key in one file."""
        ca, key, request = (str(folder / name) for name in ("ca.pem", "ca.key", "server.csr"))
        openssl = need("openssl", "openssl")
        subject = ["-subj", "/CN=callcast tests"]
        authority = [*KEY, *subject, "-days", DAYS, "-keyout", key, "-out", ca]
        run([openssl, "req", "-x509", *authority], "make an authority")
        own = str(folder / "server.key")
        run([openssl, "req", *KEY, *subject, "-keyout", own, "-out", request], "make a key")
        names = folder / "names"
        names.write_text(f"subjectAltName=IP:{HOST},DNS:localhost\n")
        signed = ["-CA", ca, "-CAkey", key, "-CAcreateserial", "-days", DAYS]
        argv = [openssl, "x509", "-req", "-in", request, *signed, "-extfile", str(names)]
        certificate = run(argv, "certify a key")
        (folder / "server.pem").write_text(Path(own).read_text() + certificate)

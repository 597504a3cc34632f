"""What went wrong, in one sentence that says what was tried and what to do."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

from pika import exceptions

from callcast.brokers.rabbitmq.address import Endpoint
from callcast.core.errors import CallcastError, Misuse, NotPermitted, Unavailable

ACCESS_REFUSED = 403
NOT_FOUND = 404
LOCKED = 405
DIFFERENT = 406
DEFAULT_EXCHANGE = "amq.default"
"""What the server calls the exchange without a name."""
DEPTH_MAX = 10
"""Errors inside errors that are looked into."""


class ChannelLost(Exception):
    """The channel is closed: by the broker, with a code and its words, or with its connection."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{text} ({code})" if code else text)
        self.code = code
        self.text = text


def of_channel(error: BaseException) -> ChannelLost:
    """The end of a channel, from what the driver says about it."""
    if isinstance(error, exceptions.ChannelClosed):
        return ChannelLost(error.reply_code, str(error.reply_text))
    if isinstance(error, exceptions.ConnectionClosed):
        return ChannelLost(error.reply_code, f"the connection was closed: {error.reply_text}")
    return ChannelLost(0, f"the connection was lost: {brief(error)}")


def of_opening(error: BaseException, endpoint: Endpoint) -> CallcastError:
    """Why no connection could be opened."""
    chain = list(_chain(error))
    for each in chain:
        told = _told(each, endpoint)
        if told is not None:
            return told
    return Unavailable(f"no connection to RabbitMQ at {endpoint}: {brief(chain[-1])}")


def is_refused_at(error: ChannelLost, exchange: str) -> bool:
    """Whether a publish to this exchange ended the channel, and not another one on it."""
    return error.code == ACCESS_REFUSED and f"'{exchange or DEFAULT_EXCHANGE}'" in error.text


def of_refusal(error: ChannelLost, what: str, endpoint: Endpoint) -> CallcastError:
    """Why the broker would not do `what`; a lost connection is `Unavailable`."""
    if error.code == ACCESS_REFUSED:
        return NotPermitted(
            f"RabbitMQ at {endpoint} did not let {endpoint.user!r} {what}: {error.text}; grant it"
            f" with: rabbitmqctl set_permissions -p {endpoint.vhost} {endpoint.user} '.*' '.*' '.*'"
        )
    if error.code == DIFFERENT and "timed out" in error.text:
        return Unavailable(
            f"RabbitMQ at {endpoint} took back what ran here for longer than its consumer timeout:"
            f" {error.text}; shorten the handler, or raise consumer_timeout there"
        )
    if error.code in {DIFFERENT, LOCKED}:
        return Misuse(
            f"RabbitMQ at {endpoint} has it otherwise and would not {what}: {error.text}; move its"
            " messages away and delete it, or use a vhost of your own"
        )
    return Unavailable(f"RabbitMQ at {endpoint} could not {what}: {error}")


def is_topic_exchange(error: ChannelLost) -> bool:
    """Whether a fanout was refused because a topic exchange of that name is there."""
    return error.code == DIFFERENT and "received 'fanout' but current is 'topic'" in error.text


def brief(error: BaseException) -> str:
    """One line about an error, also about one without words."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _told(error: BaseException, at: Endpoint) -> CallcastError | None:
    """The sentence for this very error, if there is one."""
    where = f"{at.host}:{at.port}"
    if isinstance(error, ssl.SSLError):
        return _no_tls(at, error)
    if isinstance(error, OSError):
        return _no_socket(at, error)
    if isinstance(error, exceptions.ProbableAuthenticationError | exceptions.AuthenticationError):
        return NotPermitted(
            f"RabbitMQ at {where} refused user {at.user!r}: check user and password in the URL"
        )
    if isinstance(error, exceptions.ProbableAccessDeniedError):
        return _no_vhost(at, str(error))
    if isinstance(error, exceptions.IncompatibleProtocolError):
        return Unavailable(
            f"{where} answers, but does not speak AMQP 0-9-1: check the port, and whether it wants"
            " TLS (amqps://)"
        )
    return None


def _no_socket(at: Endpoint, error: OSError) -> CallcastError | None:
    if isinstance(error, socket.gaierror):
        return Unavailable(f"there is no host {at.host!r} ({error.strerror}): check the URL")
    if isinstance(error, ConnectionRefusedError):
        return Unavailable(
            f"nobody listens at {at.host}:{at.port}: start RabbitMQ there, or check host and port"
            " in the URL"
        )
    return None


def _no_vhost(at: Endpoint, text: str) -> CallcastError:
    where = f"{at.host}:{at.port}"
    if "not found" in text:
        return Unavailable(
            f"RabbitMQ at {where} has no vhost {at.vhost!r}: make it with"
            f" 'rabbitmqctl add_vhost {at.vhost}', or check the end of the URL"
        )
    return NotPermitted(
        f"RabbitMQ at {where} does not let user {at.user!r} into vhost {at.vhost!r}: grant it with"
        f' \'rabbitmqctl set_permissions -p {at.vhost} {at.user} ".*" ".*" ".*"\''
    )


def _no_tls(at: Endpoint, error: ssl.SSLError) -> CallcastError:
    where = f"{at.host}:{at.port}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return NotPermitted(
            f"the certificate of {where} is not trusted ({error.verify_message}): give its signer"
            " with ca=FILE, and the host by the name that the certificate has"
        )
    return Unavailable(
        f"{where} does not speak TLS ({error.reason or error}): use amqp:// there, or the TLS port"
    )


def _chain(error: BaseException, depth: int = 0) -> Iterator[BaseException]:
    """An error and those inside it: the driver wraps them in several ways."""
    yield error
    if depth > DEPTH_MAX:
        return
    inner = [
        *getattr(error, "exceptions", ()),
        getattr(error, "exception", None),
        *error.args,
        error.__cause__,
    ]
    for each in inner:
        if isinstance(each, BaseException):
            yield from _chain(each, depth + 1)

"""Webhooks: signed as Standard Webhooks has it, and sent to hosts that the operator listed, at the address that was checked.

Imports no torch.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import socket
from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpx
from anyio import to_thread
from sqlalchemy.exc import SQLAlchemyError
from standardwebhooks import Webhook
from starlette.concurrency import run_in_threadpool

from hunyuan_video.serving.jobs import Delivery
from hunyuan_video.serving.rules import Rules
from hunyuan_video.serving.store import Store

log = logging.getLogger(__name__)
LOOK = 1.0  # seconds between looks for one that is due
TIMEOUT, DEADLINE = 10.0, 30.0  # seconds for a step of a delivery, and for all of it: a receiver may answer a byte at a time
PAUSE = 40.0  # seconds before the second try, longer than the first one takes; each further one waits twice as long
MAX_TRIES = 10  # over almost six hours
AT_ONCE = 4  # so that a slow receiver does not hold up the others


async def deliver_all(store: Store, rules: Rules, *, look: float = LOOK, pause: float = PAUSE, at_once: int = AT_ONCE) -> None:
    """Send what is due, so many at once, until cancelled. Any number of processes may do so, too."""
    async with httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=TIMEOUT) as client, asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(_deliver_in_turn(client, store, rules, look, pause))


async def _deliver_in_turn(client: httpx.AsyncClient, store: Store, rules: Rules, look: float, pause: float) -> None:
    while True:
        try:
            delivery = await run_in_threadpool(store.due_delivery, pause)
            if delivery is None:
                await asyncio.sleep(look)
                continue
            failure = await deliver(client, delivery, rules)
            if failure is not None:
                log.warning("%s of %s was not delivered at try %d: %s.", delivery.kind, delivery.job, delivery.tries + 1, failure)
            if failure is None or delivery.tries + 1 >= MAX_TRIES:
                await run_in_threadpool(store.delivered, delivery)
        except SQLAlchemyError as error:  # whatever it is, webhooks must go on when the database does
            log.warning("Webhooks wait for the database: %s.", type(error).__name__)
            await asyncio.sleep(look)


async def deliver(client: httpx.AsyncClient, delivery: Delivery, rules: Rules) -> str | None:
    """Try once. Returns what went wrong, if something did."""
    try:
        async with asyncio.timeout(DEADLINE):
            return await _post(client, delivery, rules)
    except TimeoutError:
        return f"the receiver did not answer within {DEADLINE:g} s"
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"[:200]


async def _post(client: httpx.AsyncClient, delivery: Delivery, rules: Rules) -> str | None:
    rules.check_webhook(delivery.url)  # the list may be another since
    host = urlsplit(delivery.url).hostname or ""
    address = await to_thread.run_sync(address_of, host, rules.webhook_hosts, abandon_on_cancel=True)
    url = httpx.URL(delivery.url)
    request = client.build_request(
        "POST",
        url.copy_with(host=address),  # not the name, which might stand for another address by now
        content=(body := _body(delivery)),
        headers={"host": url.netloc.decode(), "content-type": "application/json", **_signed(delivery, body, rules)},
        extensions={"sni_hostname": host},
    )
    response = await client.send(request, stream=True)  # of which nobody reads the body
    await response.aclose()
    return None if response.is_success else f"the receiver answered {response.status_code}"


def address_of(host: str, listed: tuple[str, ...]) -> str:
    """Where a host is. Raises a ValueError if that is not on the public network and the operator has not listed this very address, or
    localhost; an OSError if nobody knows the host."""
    found = {ipaddress.ip_address(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    for address in sorted(found, key=str):
        is_listed = str(address) in listed or (host == "localhost" and address.is_loopback)
        if not (address.is_global and not address.is_multicast) and not is_listed:
            raise ValueError(f"{host} is at {address}, which is no public address and not listed")
    return str(min(found, key=lambda address: (address.version, str(address))))


def _body(delivery: Delivery) -> str:
    content = {
        "id": _event_id(delivery),
        "object": "event",
        "type": delivery.kind,
        "created_at": int(delivery.created_at),
        "data": {"id": delivery.job},
    }
    return json.dumps(content, separators=(",", ":"))


def _event_id(delivery: Delivery) -> str:
    """The same at each try, for a receiver to know it again: a job ends once."""
    return f"evt_{delivery.job.removeprefix('video_')}"


def _signed(delivery: Delivery, body: str, rules: Rules) -> dict[str, str]:
    assert rules.webhook_secret is not None  # there are hosts, so there is one
    now = datetime.now(UTC)
    signature = Webhook(rules.webhook_secret).sign(_event_id(delivery), now, body)
    return {"webhook-id": _event_id(delivery), "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature}

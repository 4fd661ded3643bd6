"""Ranks that look after each other, so that all of them end soon after one has failed, with one sentence that says which and why.

Each has a thread that beats in the store which torchrun keeps, says there what its rank does, and reads what the others say. Who fails
writes why; who only loses a connection, or waits too long, looks for whoever has fallen silent, and writes that. What is written first is
the reason of all, and one of them says it. The thread decides; the rest of the program tells it what happened and ends as it says. It
also ends a process that cannot end by itself, because it waits in a backend for what will not come.
"""

from __future__ import annotations

import _thread
import contextlib
import hashlib
import json
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from types import FrameType

import torch.distributed as dist

from hunyuan_video.distributed.started import LAUNCHED, rank, world_size
from hunyuan_video.signals import STOPS

ERROR_FILE = "TORCHELASTIC_ERROR_FILE"  # torchrun's, where a process leaves why it failed
PATIENCE = 600.0  # seconds without a sign of life while processes start, which from a cold disk may take minutes

_BEAT = 0.5  # seconds
_SILENCE = 4.0  # seconds without a beat after which, when something is wrong, a rank is what is wrong
_GRACE = 5.0  # seconds for the rest of the program to end
_CONCLUSION = 60.0  # seconds in which it is known why all end; else the store itself is out of reach
_OF_GLOO = ("gloo/transport", "caused pair closure", "Connection closed by peer", "Timed out waiting")  # it has no class for them
_INTERRUPT = getattr(signal, "SIGUSR1", None)  # never sent, only raised here

Explain = Callable[[BaseException], tuple[str, int] | None]


class EndedError(BaseException):
    """Another rank has failed, and this one ends with it. No `Exception`, for nobody on the way can mend it."""


@dataclass(frozen=True)
class Ending:
    """Why a run ends before it is done; without a sentence, because a signal told all to stop."""

    rank: int | None
    """who failed, if it says so itself"""
    sentence: str
    code: int


def as_one(work: Callable[[], None], explain: Explain) -> int:
    """Do the work of a command on this rank of several. Returns 0 when all ranks have done theirs, and else ends the process.

    Only the first rank prints. `explain` gives a sentence and an exit code for what a user can mend.
    """
    watch = Watch(explain)
    token = _watch.set(watch)
    if watch.rank > 0:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (until the process ends)
        logging.getLogger("hunyuan_video").setLevel(logging.ERROR)
    try:
        with watch:
            try:
                work()
                watch.wait_for_all()
            except SystemExit as end:  # after a help
                return int(end.code or 0)
            except BaseException as error:  # whatever it is, the others must know
                watch.report(error)
                watch.end()
    finally:
        _watch.reset(token)
    return 0


def doing(what: str) -> None:
    """Let the other ranks know, if there are any."""
    if (watch := _watch.get()) is not None:
        watch.doing = what


def report(error: BaseException) -> None:
    """Tell the others what ends this rank, if there are any, before anything is taken down, which may wait for them."""
    if (watch := _watch.get()) is not None:
        watch.report(error)


def be_patient(seconds: int) -> None:
    """How long a rank may give no sign of life."""
    if (watch := _watch.get()) is not None:
        watch.timeout = float(seconds)


class Watch:
    """This rank's eye on the others, while in its `with` block."""

    def __init__(self, explain: Explain):
        self.rank, self.size, self.timeout, self.doing = rank(), world_size(), PATIENCE, "starting"
        self._explain = explain
        self._launched = LAUNCHED in os.environ
        self._stderr = sys.stderr  # which may be another one for a while, where the program looks at what a library says
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        # A connection of its own: one that waits for a key keeps all others who share it waiting. Where no torchrun keeps the store (but
        # some other launcher started the ranks), it is in the first one.
        keeps = self.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        store = dist.TCPStore(host, port, is_master=keeps, timeout=timedelta(seconds=PATIENCE), multi_tenant=True, wait_for_workers=False)
        self._store = dist.PrefixStore(f"watch/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        self._parent = os.getppid()
        self._beats = 0
        self._heard: dict[int, tuple[str, float]] = {other: ("", time.monotonic()) for other in range(self.size)}
        self._error: BaseException | None = None
        self._own: tuple[str, int] | None = None
        self._asked = 0  # the number of the signal that told this process to stop
        self._looking_since: float | None = None
        self._done = False
        self._all_done, self._concluded = threading.Event(), threading.Event()
        self._ending: Ending | None = None
        self._signals, self._wakeup = socket.socketpair()
        self._thread = threading.Thread(target=self._keep_watch, daemon=True)

    def __enter__(self) -> Watch:
        for end in (self._signals, self._wakeup):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)  # heard at once, also while this process waits in a backend
        if _INTERRUPT is not None:
            signal.signal(_INTERRUPT, _end)
        self._store.set(f"who/{self.rank}", f"{os.getpid()} {socket.gethostname()}")
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        signal.set_wakeup_fd(-1)
        self._done = True
        self._nudge()

    def report(self, error: BaseException) -> None:
        """What ends this rank; the first such thing counts."""
        if self._error is None and not isinstance(error, EndedError | SystemExit | GeneratorExit):
            self._error = error
            self._nudge()

    def wait_for_all(self) -> None:
        """Until every rank has done its work. One that has fallen silent meanwhile is what `end` then tells of."""
        self._done = True
        self._nudge()
        while not self._all_done.wait(0.1):  # in pieces, so that signals are heard
            pass

    def end(self) -> None:
        """End this process, as all end, once it is known why."""
        for number in STOPS:
            signal.signal(number, lambda *_: None)  # it ends already; the thread still hears it
        if self._concluded.wait(_CONCLUSION) and self._ending is not None:
            _exit(self._ending.code)
        self._print(f"Rank {self.rank} has lost the other ranks, and what started them.")
        _exit(1)

    def _nudge(self) -> None:
        with contextlib.suppress(OSError):
            self._wakeup.send(b"\0")

    def _keep_watch(self) -> None:
        try:
            while (ending := self._look()) is None:
                if self._done and all(beat.startswith("done") for beat, _ in self._heard.values()):
                    return self._all_done.set()
                select.select([self._signals], [], [], _BEAT)
        except Exception:  # the store's, of several kinds
            if self._done:  # who keeps it may have ended before this rank has seen that all are done
                return self._all_done.set()
            ending = Ending(None, "The process that started the ranks, or keeps them together, is gone, and so they end.", 1)
        self._conclude(ending)

    def _look(self) -> Ending | None:
        """One look at the others."""
        if os.getppid() != self._parent:
            raise OSError("torchrun is gone")
        self._listen()
        with contextlib.suppress(BlockingIOError):
            told = [number for number in self._signals.recv(64) if number in STOPS]
            self._asked = self._asked or next(iter(told), 0)
        if isinstance(self._error, KeyboardInterrupt):  # what came of a signal
            self._asked = self._asked or signal.SIGINT
        if self._store.check(["ending"]):
            return Ending(**json.loads(self._store.get("ending")))
        silent = {other: time.monotonic() - since for other, (beat, since) in self._heard.items() if not beat.startswith("done")}
        silent.pop(self.rank, None)
        longest = max(silent, key=lambda other: silent[other], default=None)
        if longest is not None and silent[longest] > self.timeout:
            return self._give_up(longest, silent[longest])
        if self._error is None and not self._asked:
            return None
        if self._asked and (self._launched or self._asked != signal.SIGTERM):
            return self._publish(Ending(None, "", 128 + self._asked))
        if self._error is not None and not self._asked and not is_lost(self._error):
            return self._publish(self._failure(self._error))
        return self._look_for_cause(longest, silent)

    def _listen(self) -> None:
        self._beats += 1
        self._store.set(f"beat/{self.rank}", "done" if self._done else f"{self._beats} {self.doing}")
        now = time.monotonic()
        there = [other for other, (beat, _) in self._heard.items() if beat or self._store.check([f"beat/{other}"])]
        for other, value in zip(there, self._store.multi_get([f"beat/{other}" for other in there]), strict=True):
            if (beat := value.decode()) != self._heard[other][0]:
                self._heard[other] = beat, now

    def _look_for_cause(self, longest: int | None, silent: dict[int, float]) -> Ending | None:
        """This rank has lost a connection, or is told to end by torchrun, which does that to all when one has failed."""
        if self._looking_since is None:
            self._looking_since = time.monotonic()
            self._store.set(f"{'stopping' if self._asked else 'waited'}/{self.rank}", "")
        if longest is not None and silent[longest] > _SILENCE:
            if self._error is not None and _timed_out(self._error):
                return self._give_up(longest, silent[longest])
            gone = f"Rank {longest} is gone, {self._last(longest)}; it was killed, or its machine is lost."
            return self._publish(Ending(None, gone, 1))
        others = [other for other in range(self.size) if other != self.rank]
        if self._asked and all(self._store.check([f"stopping/{other}"]) for other in others):
            return self._publish(Ending(None, "", 128 + self._asked))
        if time.monotonic() - self._looking_since < _SILENCE + 2 * _BEAT:
            return None
        if self._asked:
            return self._publish(Ending(None, "", 128 + self._asked))
        assert self._error is not None
        idle = [other for other in silent if not self._store.check([f"waited/{other}"])]
        if idle and _timed_out(self._error):
            return self._give_up(idle[0], self.timeout)
        return self._publish(Ending(self.rank, f"lost its connection with others, and none has said why ({_line(self._error)}).", 1))

    def _give_up(self, other: int, seconds: float) -> Ending:
        """On a rank that may wake again, for others do not wait longer."""
        slow = "if it is only slow, a longer --timeout waits for it"
        mine = Ending(None, f"Rank {other} has not answered for {seconds:.0f} s, {self._last(other)}; {slow}.", 1)
        ending = self._publish(mine)
        if ending == mine:
            self._kill(other)
        return ending

    def _last(self, other: int) -> str:
        return f"last seen {self._heard[other][0].partition(' ')[2] or 'never'}"

    def _failure(self, error: BaseException) -> Ending:
        """What this rank failed of, in a sentence; of what nobody foresaw, also the traceback, here."""
        self._own = self._explain(error)
        if self._own is None:
            traceback.print_exception(error, file=self._stderr)
            self._own = f"{type(error).__name__}: {_line(error)}", 1
        sentence, code = self._own
        self._store.add(_alike(sentence), 1)
        return Ending(self.rank, sentence, code)

    def _publish(self, ending: Ending) -> Ending:
        """The reason of all ranks, which is this one if no other was there first."""
        return Ending(**json.loads(self._store.compare_set("ending", "", json.dumps(asdict(ending)))))

    def _kill(self, other: int) -> None:
        """End a rank of this machine for good: one that is stopped takes no signal from torchrun, and must not wake and write."""
        if self._store.check([f"who/{other}"]):
            pid, host = self._store.get(f"who/{other}").decode().split(" ", 1)
            if host == socket.gethostname() and _parent_of(int(pid)) == self._parent:  # not somebody's on a machine that is called alike
                with contextlib.suppress(OSError):
                    os.kill(int(pid), signal.SIGKILL)

    def _conclude(self, ending: Ending) -> None:
        try:
            self._say(ending)
        except (RuntimeError, OSError):  # the store is gone; then all say it
            self._print(ending.sentence)
        self._ending = ending
        self._concluded.set()
        if self._error is None and not self._asked:
            if not ending.sentence:
                _thread.interrupt_main(signal.Signals(ending.code - 128))
            elif _INTERRUPT is not None:
                _thread.interrupt_main(_INTERRUPT)
        time.sleep(_GRACE)
        _exit(ending.code)

    def _say(self, ending: Ending) -> None:
        """To the launcher, if it is ours; else by the first rank that can."""
        if not ending.sentence:
            return
        if self._error is not None and self._own is None and not self._asked and not is_lost(self._error):
            self._failure(self._error)  # counted among those who fail alike
        text = ending.sentence
        if ending.rank is not None and not self._all_fail_alike(text):
            text = f"Rank {ending.rank}: {text}"
        if path := os.environ.get(ERROR_FILE):
            with open(path, "w", encoding="utf-8") as file:
                json.dump({"message": text, "code": ending.code, "timestamp": int(time.time())}, file)
        if self._launched:
            return
        deadline = time.monotonic() + (0 if self.rank == 0 else 2 + 0.3 * self.rank)
        while time.monotonic() < deadline and not self._store.check(["said"]):
            time.sleep(0.1)
        if self._store.compare_set("said", "", str(self.rank)) == str(self.rank).encode():
            self._print(text)

    def _print(self, sentence: str) -> None:
        print(f"hunyuan-video: {sentence}", file=self._stderr, flush=True)

    def _all_fail_alike(self, sentence: str) -> bool:
        """Whether it is no single rank's, as a wrong request is. They need not fail in the same moment."""
        deadline = time.monotonic() + 1.5
        while self._own is not None and time.monotonic() < deadline:
            if self._store.add(_alike(sentence), 0) >= self.size:
                return True
            time.sleep(0.1)
        return False


_watch: ContextVar[Watch | None] = ContextVar("_watch", default=None)


def is_lost(error: BaseException) -> bool:
    """Whether it says no more than that another rank is not there."""
    if "out of memory" in str(error):  # NCCL's is of the same class
        return False
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and any(words in str(error) for words in _OF_GLOO))


def _timed_out(error: BaseException) -> bool:
    return any(words in str(error).lower() for words in ("timed out", "timeout"))


def _parent_of(pid: int) -> int | None:
    """Of a process here; None where that cannot be known, and then torchrun ends it, later."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return None


def _line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__).rstrip(".")


def _alike(sentence: str) -> str:
    return f"alike/{hashlib.sha256(sentence.encode()).hexdigest()}"


def _end(_number: int, _frame: FrameType | None) -> None:
    raise EndedError


def _exit(code: int) -> None:
    """At once: what takes a backend down waits for those who are gone."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)

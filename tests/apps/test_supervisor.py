"""Processes that are kept running, on a leash."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import InterfaceError, OperationalError

from hunyuan_video.apps import supervisor
from hunyuan_video.apps.supervisor import Child, how, supervise
from hunyuan_video.leash import hold
from hunyuan_video.serving.store import Store

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends signals")

# A process that says that it has begun, and ends well if it is let go.
PATIENT = "import sys; open({log!r}, 'a').write('begun\\n'); sys.stdin.read(); open({log!r}, 'a').write('let go\\n')"


class Lost(Store):
    """Without a database: which workers have ended without a word."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def lost(self, worker: str) -> None:
        self.names.append(worker)

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST", 0.01)
    monkeypatch.setattr(supervisor, "LOOK", 0.02)


def child(code: str, name: str = "w1") -> Child:
    return Child(name, (sys.executable, "-S", "-c", code), is_worker=True, pause=0.01)


def supervised(children: list[Child], until: Callable[[], bool]) -> Lost:
    """Until then, and stopped as by Ctrl-C."""
    lost, asked = Lost(), False

    def also() -> None:
        nonlocal asked
        if not asked and until():
            asked = True
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):  # as signals do what they did before, once all have ended
        supervise(lost, children, also)
    return lost


def lines(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8").splitlines() if log.exists() else []


def test_who_dies_is_started_again_and_its_job_is_free_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = tmp_path / "log"
    dying = child(f"open({str(log)!r}, 'a').write('begun\\n'); import os; os.kill(os.getpid(), 9)")
    lost = supervised([dying], lambda: len(lines(log)) >= 3)
    assert set(lost.names) == {"w1"} and len(lost.names) >= 2
    assert "w1 ended, by SIGKILL; it is started again in 0 s." in caplog.messages


def test_the_pause_grows_each_time(tmp_path: Path) -> None:
    failing = child("raise SystemExit(1)")
    supervised([failing], lambda: failing.pause >= 0.16)
    assert failing.pause in (0.16, 0.32)


def test_a_database_that_is_away_ends_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    errors = [OperationalError("select", {}, OSError("gone")), InterfaceError("select", {}, OSError("gone"))]

    def until() -> bool:
        if errors:
            raise errors.pop()
        return True

    supervised([], until)
    assert caplog.messages == ["The database does not answer (gone); asking on."] * 2


def test_a_stop_lets_all_end_in_order(tmp_path: Path) -> None:
    logs = [tmp_path / str(number) for number in range(2)]
    children = [child(PATIENT.format(log=str(log)), log.name) for log in logs]
    lost = supervised(children, lambda: all(lines(log) for log in logs))
    assert [lines(log) for log in logs] == [["begun", "let go"]] * 2 and lost.names == []


def test_what_a_restart_cannot_mend_ends_all_with_its_code(tmp_path: Path) -> None:
    log = tmp_path / "log"
    hopeless = child(f"import os, time\nwhile not os.path.exists({str(log)!r}): time.sleep(0.01)\nraise SystemExit(2)")
    with pytest.raises(SystemExit) as ended:
        supervise(Lost(), [child(PATIENT.format(log=str(log)), "other"), hopeless])
    assert ended.value.code == 2 and lines(log) == ["begun", "let go"]


def test_a_second_signal_ends_who_does_not_listen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hunyuan_video.signals._SAME", 0.0)
    log = tmp_path / "log"
    stubborn = child(f"import time; open({str(log)!r}, 'a').write('begun\\n'); time.sleep(600)")

    def again() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    timer: list[Any] = []

    def until() -> bool:
        if lines(log) and not timer:
            timer.append(threading.Timer(0.5, again))
            timer[0].start()
            return True
        return False

    begun = time.monotonic()
    supervised([stubborn], until)
    assert stubborn.process is None and time.monotonic() - begun < 60
    timer[0].join()


def test_a_process_ends_with_the_one_that_holds_it() -> None:
    inner = "import time; from hunyuan_video.leash import end_with_holder; end_with_holder(); print('held', flush=True); time.sleep(600)"
    outer = f"import sys; from hunyuan_video.leash import hold; hold([sys.executable, '-c', {inner!r}]).wait()"
    with subprocess.Popen([sys.executable, "-c", outer], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        holder.kill()
        assert holder.communicate(timeout=60)[0] == ""  # which the inner one holds open until it ends


def test_letting_go_is_a_sigterm(tmp_path: Path) -> None:
    code = "import time; from hunyuan_video.leash import end_with_holder; end_with_holder(); time.sleep(600)"
    held = hold([sys.executable, "-c", code])
    assert held.stdin is not None
    held.stdin.close()
    assert held.wait(60) == -signal.SIGTERM


def test_how_a_process_ended_is_said() -> None:
    assert [how(1), how(-9), how(-64)] == ["with exit code 1", "by SIGKILL", "by SIGRTMAX"]

"""Packed prompts that wait for their engine: what memory does not hold lies in a file, and comes back byte for byte."""

from __future__ import annotations

import copy
import errno
import os
import pickle
import tempfile
import threading

import pytest

pytest.importorskip("lm_eval")

from icr_tasks.harness import instance, waiting
from icr_tasks.harness.waiting import Store

BLOCKS = [bytes([n]) * (1000 + n) for n in range(40)]


def on_disk(store: Store) -> int:
    """Bytes of the file of a store."""
    return os.fstat(store._file.fileno()).st_size if store._file is not None else 0


def test_what_memory_does_not_hold_is_in_the_file() -> None:
    store = Store(memory=5_000)
    held = [store.put(block) for block in BLOCKS]
    assert [one.get() for one in held] == BLOCKS
    inside = sum(len(block) for block in BLOCKS[:4])
    assert inside <= 5_000 < inside + len(BLOCKS[4])
    assert on_disk(store) == sum(map(len, BLOCKS)) - inside


def test_a_small_run_never_makes_a_file() -> None:
    store = Store()
    held = [store.put(block) for block in BLOCKS]
    assert store._file is None and [one.get() for one in held] == BLOCKS


def test_an_emptied_file_gives_its_room_back_and_is_written_again() -> None:
    store = Store(memory=0)
    for _ in range(3):
        held = [store.put(block) for block in BLOCKS]
        assert on_disk(store) == sum(map(len, BLOCKS))
        for one in held[::2]:
            one.drop()
            one.drop()  # twice is once
        assert [one.get() for one in held[1::2]] == BLOCKS[1::2]
        for one in held[1::2]:
            one.drop()
        assert on_disk(store) == 0


def test_memory_that_is_dropped_is_used_again() -> None:
    store = Store(memory=1_500)
    for block in BLOCKS:
        one = store.put(block)
        assert one.get() == block
        one.drop()
    assert store._file is None


def test_nothing_is_left_in_the_temporary_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    store = Store(memory=0)
    store.put(b"secret passages")
    assert on_disk(store) == 15 and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("broken", ["write", "open"])
def test_a_full_or_closed_disk_costs_memory_and_says_so(broken, monkeypatch, caplog) -> None:
    store = Store(memory=0)
    before = store.put(BLOCKS[0]) if broken == "write" else None

    def fails(*_args: object, **_kwargs: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(
        *((waiting.os, "pwrite") if broken == "write" else (tempfile, "TemporaryFile")), fails
    )
    held = [store.put(block) for block in BLOCKS]
    assert [one.get() for one in held] == BLOCKS
    assert before is None or before.get() == BLOCKS[0]
    assert len(caplog.records) == 1 and "No space left" in caplog.text


def test_pieces_of_a_write_are_joined(monkeypatch) -> None:
    write, read = os.pwrite, os.pread
    monkeypatch.setattr(waiting.os, "pwrite", lambda fd, data, at: write(fd, bytes(data)[:300], at))
    monkeypatch.setattr(waiting.os, "pread", lambda fd, size, at: read(fd, min(size, 170), at))
    store = Store(memory=0)
    held = [store.put(block) for block in BLOCKS]
    assert [one.get() for one in held] == BLOCKS


def test_a_file_that_lost_its_end_is_an_error() -> None:
    store = Store(memory=0)
    one = store.put(BLOCKS[7])
    assert store._file is not None
    store._file.truncate(500)
    with pytest.raises(OSError, match="ends at 500, not at 1007"):
        one.get()


def test_copies_hold_their_bytes_themselves() -> None:
    store = Store(memory=0)
    one = store.put(BLOCKS[3])
    copies = [copy.deepcopy(one), pickle.loads(pickle.dumps(one))]
    one.drop()
    store.put(BLOCKS[4])  # over the same place
    assert [other.get() for other in copies] == [BLOCKS[3]] * 2


def test_a_forked_child_reads_its_parents_prompts_and_writes_none_of_them_over() -> None:
    store = Store(memory=0)
    held = [store.put(block) for block in BLOCKS[:20]]
    child = os.fork()
    if child == 0:
        mine = [store.put(block[::-1] + b"child") for block in BLOCKS[20:]]
        right = [one.get() for one in held] == BLOCKS[:20]
        right &= [one.get() for one in mine] == [block[::-1] + b"child" for block in BLOCKS[20:]]
        for one in [*held, *mine]:
            one.drop()
        os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    later = [store.put(block) for block in BLOCKS[20:]]
    assert [one.get() for one in held + later] == BLOCKS


def test_threads_share_a_store() -> None:
    store, wrong = Store(memory=3_000), []

    def work(seed: int) -> None:
        for n in range(200):
            block = BLOCKS[(seed * 7 + n) % len(BLOCKS)]
            one = store.put(block)
            if one.get() != block:
                wrong.append(n)
            one.drop()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and store._held == 0 and on_disk(store) == 0


@pytest.mark.parametrize("text", ["plain", "\udce9 lone surrogate", "", "a\0b " * 50_000, "日本語 😀" * 999])
def test_a_request_shows_its_prompt_from_the_file(text, monkeypatch) -> None:
    store = Store(memory=0)
    monkeypatch.setattr(instance, "STORE", store)
    request = instance.PromptInstance(
        doc={}, prompt=text, gen_kwargs={"until": []}, digest='{"n_chars": 8}', task="t", doc_id=0, repeats=1
    )
    assert on_disk(store) > 0
    assert request.args[0] == text and copy.deepcopy(request).args[0] == text
    request.release('{"n_chars": 8}')
    assert on_disk(store) == 0 and request.args[0] == '{"n_chars": 8}'

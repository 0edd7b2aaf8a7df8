"""The gate before an engine: bounded, urgent first, and never held up by refills."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from shoal.lifecycle.gate import Gate, Priority


async def enter(gate: Gate, priority: Priority, log: list[str], name: str) -> AsyncExitStack:
    stack = AsyncExitStack()
    await stack.enter_async_context(gate.place(priority))
    log.append(name)
    return stack


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_urgent_pass_first_and_the_rest_in_order() -> None:
    gate, log = Gate(1), list[str]()
    first = await enter(gate, Priority.NORMAL, log, "first")
    waiting = [
        asyncio.create_task(enter(gate, priority, log, name))
        for name, priority in (
            ("refill", Priority.REFILL),
            ("second", Priority.NORMAL),
            ("third", Priority.NORMAL),
            ("take", Priority.TAKE),
        )
    ]
    await turn()
    assert log == ["first"]
    await first.aclose()
    for expected in (["take"], ["second"], ["third"], ["refill"]):
        await turn()
        assert log[-1:] == expected
        held = next(task for task in waiting if task.done())
        waiting.remove(held)
        await held.result().aclose()
    assert log == ["first", "take", "second", "third", "refill"]


async def test_refills_leave_places_free() -> None:
    gate, log = Gate(8), list[str]()
    refills = [asyncio.create_task(enter(gate, Priority.REFILL, log, "refill")) for _ in range(8)]
    await turn()
    assert log == ["refill"] * 2
    others = [await enter(gate, Priority.NORMAL, log, "normal") for _ in range(6)]
    late = asyncio.create_task(enter(gate, Priority.TAKE, log, "take"))
    await turn()
    assert log == ["refill"] * 2 + ["normal"] * 6, "eight at once and no more"
    await others[0].aclose()
    await turn()
    assert log[-1] == "take"
    for task in (*refills, late):
        task.cancel()
    await asyncio.gather(*refills, late, return_exceptions=True)


async def test_one_place_is_enough_for_everybody_in_turn() -> None:
    gate, log = Gate(1), list[str]()
    await (await enter(gate, Priority.REFILL, log, "refill")).aclose()
    await (await enter(gate, Priority.NORMAL, log, "normal")).aclose()
    assert log == ["refill", "normal"]


async def test_who_leaves_the_queue_takes_no_place() -> None:
    gate, log = Gate(1), list[str]()
    held = await enter(gate, Priority.NORMAL, log, "held")
    gone = asyncio.create_task(enter(gate, Priority.NORMAL, log, "gone"))
    let_in = asyncio.create_task(enter(gate, Priority.NORMAL, log, "let in"))
    last = asyncio.create_task(enter(gate, Priority.NORMAL, log, "last"))
    await turn()
    gone.cancel()
    await held.aclose()
    let_in.cancel()  # its place was free already, but it has not seen it yet
    await asyncio.gather(gone, let_in, return_exceptions=True)
    await (await asyncio.wait_for(last, 30)).aclose()
    assert log == ["held", "last"]

"""What people do with aiohttp."""

import asyncio

import aiohttp

from names import HTTP, WEBSOCKET


async def parts():
    for n in range(1000):
        yield b"part %d;" % n


async def http(session):
    async with session.get(HTTP) as cold:
        assert cold.status == 200, await cold.text()
        assert cold.headers["Rouse-Cold-Start"] == "true", cold.headers
    async with session.get(HTTP) as warm:
        assert warm.status == 200 and "Rouse-Cold-Start" not in warm.headers, warm.headers

    async def one(n):
        async with session.post(HTTP + "/echo", data=b"%d" % n) as answer:
            return await answer.read()

    answers = await asyncio.gather(*(one(n) for n in range(50)))
    assert answers == [b"%d" % n for n in range(50)], answers
    async with session.post(HTTP + "/echo", data=parts()) as chunked:
        assert await chunked.read() == b"".join([part async for part in parts()])
    # With `Expect: 100-continue` it sends the body only when it is told to.
    async with session.post(HTTP + "/upload", data=b"x" * 100000, expect100=True) as upload:
        assert (await upload.json())["bytes"] == 100000
    arrivals = []
    async with session.get(HTTP + "/stream?chunks=4&interval_ms=100") as stream:
        async for line in stream.content:
            arrivals.append((asyncio.get_running_loop().time(), line))
    assert [line for _, line in arrivals] == [b"chunk %d\n" % n for n in range(1, 5)], arrivals
    assert arrivals[-1][0] - arrivals[0][0] > 0.2, arrivals


async def websocket(session):
    for compress in (0, 15):
        async with session.ws_connect(WEBSOCKET + "/m", compress=compress, max_msg_size=0) as socket:
            assert bool(socket.compress) == bool(compress), f"compression: asked {compress}, got {socket.compress}"
            await socket.send_str("Grüße")
            assert await socket.receive_str() == "Grüße"
            large = bytes(range(256)) * 4096
            await socket.send_bytes(large)
            assert await socket.receive_bytes() == large
            assert await socket.close(code=1000)
            assert socket.close_code == 1000, socket.close_code


async def main():
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        await http(session)
        await websocket(session)


asyncio.run(main())
print("aiohttp passed")

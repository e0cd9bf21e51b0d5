"""What people do with requests."""

import requests

from names import HTTP

LIMIT = 60

with requests.Session() as session:
    cold = session.get(HTTP, timeout=LIMIT)
    assert cold.status_code == 200, cold.text
    assert cold.headers["Rouse-Cold-Start"] == "true", cold.headers
    warm = session.get(HTTP, timeout=LIMIT)
    assert warm.status_code == 200 and "Rouse-Cold-Start" not in warm.headers, warm.headers

    whole = bytes(range(256)) * 8192
    echoed = session.post(HTTP + "/echo", data=whole, timeout=LIMIT)
    assert echoed.content == whole, len(echoed.content)
    # A generator has no length, so it goes in chunks.
    chunked = session.post(HTTP + "/echo", data=(b"part %d;" % n for n in range(1000)), timeout=LIMIT)
    assert chunked.content == b"".join(b"part %d;" % n for n in range(1000)), len(chunked.content)

    with session.get(HTTP + "/size?bytes=5000000", stream=True, timeout=LIMIT) as download:
        assert sum(len(piece) for piece in download.iter_content(65536)) == 5000000
    with session.get(HTTP + "/sse?events=4&interval_ms=50", stream=True, timeout=LIMIT) as events:
        lines = [line for line in events.iter_lines() if line.startswith(b"data:")]
        assert lines == [b"data: event %d" % n for n in range(1, 5)], lines

    head = session.head(HTTP + "/size?bytes=7", timeout=LIMIT)
    assert head.headers["Content-Length"] == "7" and head.content == b"", head.headers
    for status in (404, 500, 503):
        assert session.get(HTTP + f"/?status={status}", timeout=LIMIT).status_code == status
    seen = session.get(HTTP + "/headers", headers={"X-Mine": "ä".encode()}, timeout=LIMIT).json()["headers"]
    assert seen["x-mine"] == ["ä"] and "x-forwarded-for" in seen, seen
print("requests passed")

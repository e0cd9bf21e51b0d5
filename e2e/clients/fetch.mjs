// What people do with Node's fetch.

import assert from 'node:assert/strict';
import { HTTP, run } from './names.mjs';

const limit = () => AbortSignal.timeout(60_000);

async function bytes(response) {
  let sum = 0;
  for await (const piece of response.body) sum += piece.length;
  return sum;
}

await run('fetch', async () => {
  const cold = await fetch(HTTP, { signal: limit() });
  assert.equal(cold.status, 200, await cold.text());
  assert.equal(cold.headers.get('rouse-cold-start'), 'true');
  const warm = await fetch(HTTP, { signal: limit() });
  assert.equal(warm.status, 200, await warm.text());
  assert.equal(warm.headers.get('rouse-cold-start'), null);

  const form = await fetch(`${HTTP}/echo`, { method: 'POST', body: new URLSearchParams({ a: 'ä', b: '2' }), signal: limit() });
  assert.equal(await form.text(), 'a=%C3%A4&b=2');
  // A stream has no length, so it goes in chunks.
  const chunks = Array.from({ length: 1000 }, (_, n) => `part ${n};`);
  const body = ReadableStream.from(chunks.map((chunk) => new TextEncoder().encode(chunk)));
  const streamed = await fetch(`${HTTP}/echo`, { method: 'POST', body, duplex: 'half', signal: limit() });
  assert.equal(await streamed.text(), chunks.join(''));

  assert.equal(await bytes(await fetch(`${HTTP}/size?bytes=5000000`, { signal: limit() })), 5_000_000);
  const all = await Promise.all(Array.from({ length: 50 }, (_, n) => fetch(`${HTTP}/echo`, { method: 'POST', body: `${n}`, signal: limit() })));
  assert.deepEqual(await Promise.all(all.map((answer) => answer.text())), Array.from({ length: 50 }, (_, n) => `${n}`));

  // Events without end, until nobody wants any more.
  const stop = new AbortController();
  const events = await fetch(`${HTTP}/sse?events=0&interval_ms=20`, { signal: stop.signal });
  assert.match(events.headers.get('content-type'), /^text\/event-stream/);
  let text = '';
  await assert.rejects(async () => {
    for await (const piece of events.body) {
      text += Buffer.from(piece).toString();
      if (text.includes('data: event 5\n')) stop.abort();
    }
  }, { name: 'AbortError' });
  assert.ok(text.startsWith('id: 1\ndata: event 1\n\n'), text);

  const head = await fetch(`${HTTP}/size?bytes=7`, { method: 'HEAD', signal: limit() });
  assert.equal(head.headers.get('content-length'), '7');
  assert.equal((await fetch(`${HTTP}/?status=418`, { signal: limit() })).status, 418);
});

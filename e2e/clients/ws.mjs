// What people do with ws.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { WEBSOCKET, run } from './names.mjs';

const WebSocket = createRequire(`${process.env.ROUSE_E2E_NODE_MODULES}/`)('ws');

async function conversation(perMessageDeflate, cold) {
  const socket = new WebSocket(`${WEBSOCKET}/m`, { perMessageDeflate, handshakeTimeout: 60_000 });
  const [upgrade] = await once(socket, 'upgrade');
  assert.equal(upgrade.headers['rouse-cold-start'], cold ? 'true' : undefined);
  if (socket.readyState !== WebSocket.OPEN) await once(socket, 'open');
  assert.equal(socket.extensions.includes('permessage-deflate'), perMessageDeflate);

  const echoed = async (message, options) => {
    const answer = once(socket, 'message');
    socket.send(message, options);
    const [data, isBinary] = await answer;
    assert.equal(isBinary, Buffer.isBuffer(message));
    assert.ok(data.equals(Buffer.from(message)), `${data.length} bytes came back of ${message.length}`);
  };
  await echoed('Grüße');
  await echoed(Buffer.alloc(0));
  await echoed(Buffer.from('ab'.repeat(500_000)));
  // One message in three frames.
  const whole = once(socket, 'message');
  socket.send('one ', { fin: false });
  socket.send('two ', { fin: false });
  socket.send('three', { fin: true });
  assert.equal(`${(await whole)[0]}`, 'one two three');
  // The server's library answers pings.
  const pong = once(socket, 'pong');
  socket.ping('are you there');
  assert.equal(`${(await pong)[0]}`, 'are you there');
  // Two hundred under way at once come back in their order.
  const order = [];
  const all = new Promise((resolve) => socket.on('message', (data) => order.push(`${data}`) === 200 && resolve()));
  for (let n = 0; n < 200; n += 1) socket.send(`${n}`);
  await all;
  assert.deepEqual(order, Array.from({ length: 200 }, (_, n) => `${n}`));

  const closed = once(socket, 'close');
  socket.close(4001, 'enough');
  assert.equal((await closed)[0], 4001);
}

await run('ws', async () => {
  await conversation(false, true);
  await conversation(true, false);
});

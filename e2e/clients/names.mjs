// The address of every name: the test says it, for no name server knows the functions of a test cluster.

import dns from 'node:dns';
import { isIPv6 } from 'node:net';

const address = process.env.ROUSE_ADDRESS;
const family = isIPv6(address) ? 6 : 4;

dns.lookup = (_host, options, callback) => {
  const done = callback ?? options;
  process.nextTick(() => (options?.all ? done(null, [{ address, family }]) : done(null, address, family)));
};

// URL of a function of `examples/hello`, at zero.
export const HTTP = process.env.ROUSE_HTTP;
// URL of a function that echoes WebSocket messages, at zero.
export const WEBSOCKET = process.env.ROUSE_WEBSOCKET;

// Node ends with status 0 when nothing is left to do, even if something is still awaited.
export async function run(what, work) {
  process.exitCode = 1;
  await work();
  process.exitCode = 0;
  console.log(`${what} passed`);
}

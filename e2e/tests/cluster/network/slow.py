"""Delays and loses what leaves this network namespace, as `tc qdisc add dev eth0 root netem delay 80ms loss 2%` does, for
kernels that have no netem: packets go into a TUN device, wait here, and go out by a raw socket whose mark lets them pass.

    slow.py DELAY_MS LOSS_PERCENT

Runs until it is ended, and then the namespace is as it was but for a rule that leads nowhere any more.
"""

import fcntl
import heapq
import os
import random
import select
import socket
import struct
import subprocess
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
MARK = 0x51
MOST_HELD = 100_000

delay, loss = float(sys.argv[1]) / 1000, float(sys.argv[2]) / 100

tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"slow0", IFF_TUN | IFF_NO_PI))
out = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
out.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
for command in (
    "ip link set slow0 up",
    "ip route add default dev slow0 table 51",
    f"ip rule add not fwmark {MARK} iif lo lookup 51 priority 51",
):
    subprocess.run(command.split(), check=True)
# Packets for this namespace itself are not affected: the table of local addresses has priority 0.
print("slow", flush=True)

held = []
while True:
    now = time.monotonic()
    while held and held[0][0] <= now:
        _, _, packet = heapq.heappop(held)
        try:
            out.sendto(packet, (socket.inet_ntoa(packet[16:20]), 0))
        except OSError:
            # Dropped silently, as on a network.
            pass
    until = held[0][0] - now if held else 1
    if not select.select([tun], [], [], until)[0]:
        continue
    try:
        packet = os.read(tun, 65536)
    except BlockingIOError:
        continue
    if packet[0] >> 4 == 4 and random.random() >= loss and len(held) < MOST_HELD:
        heapq.heappush(held, (time.monotonic() + delay, id(packet), packet))

"""Several processes that are one server (``--workers``).

The *main* process holds what there must be one of: the lock of the state folder, the listening socket, the scanner with
its ledger and cache, the embedded PostgreSQL, migrations and the logs' upkeep. It answers no requests. *Workers* accept
from the one socket and answer; each is told of every change of the catalogue by the main process, over a socket of its
own, so that one look at the tree serves them all and they agree on its number.

A worker that ends is replaced; one that says nothing is killed, then replaced. What was waiting to be accepted stays in
the socket. When the main process is gone, its workers finish what they are doing and leave.
"""

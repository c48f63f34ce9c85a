"""One edge between two workers: shared memory, descriptors, credits. Blind to stages.

ledger    the memory in which every frame in flight stands, and its counters
pool      sealed shared memory that holds pixels, cut into slots
wire      the descriptor: bytes <-> values, pure
lease     who may still read or write a slot
sender    publishes frames on the links that leave a worker
receiver  takes frames from the links that enter it
peers     who of the others is there, away, or gone
mail      what has come in, in the order in which it is to be read
inbox     the one ZeroMQ socket that a worker waits on
control   the socket between a worker and the supervisor; passes file descriptors
"""

"""The supervisor: owns the worker processes, the shared memory, and the ledger's last word.

rundir      the folder of a run: made, locked, swept when its owner is dead
process     one worker process: started, watched, ended
launch      graph -> workers, links and the ledger's layout, pure
preflight   what the machine must have before anything is started
restart     whether a worker that died gets a successor, pure
post        one worker's place, and whoever holds it now
pools       the shared memory that workers ask for
crew        all posts, and what each of their holders is told
accountant  readings of the ledger, repairs after deaths, the final account
watch       who hangs, and which edge is stalled, pure
core        the event loop that ties them together
__main__    the same, as a child of an application that embeds a pipeline
"""

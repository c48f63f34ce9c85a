"""The child process: the only place where transport and stages meet.

__main__   the entry: armed against outliving the supervisor before anything else happens
parent     how it is armed
process    all stages of a process, from open to close, and its last words
run        one stage, between the links that enter and leave it
context    what a stage sees of it
jobs       the work of a stage that does several frames at a time
guest      one that is called by the stage it reads, on that one's thread
blame      which of them it was that failed
"""

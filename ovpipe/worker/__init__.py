"""The child process: the only place where transport and stages meet.

__main__   the entry: armed against outliving the supervisor before anything else happens
run        one stage, from open to close, between the links that enter and leave it
"""

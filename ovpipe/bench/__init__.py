"""How fast a configuration is, and how to make it faster: what `ovpipe bench` and `tune` do.

variant     a spec turned into one that can be measured: sources that do not wait, sinks that harm
            nothing
meter       the stages that are put into it
measure     a variant run, and what it did per second
app         OpenVINO's own benchmark_app, for the model alone
streams     how many streams are few enough. Pure
knobs       what of a spec may be turned
search      which way to turn it, and whether that was any good. Pure
plot        pictures of all that

Law: what is measured is said to be so: each thing that a variant changes is told in words. Nothing
of the user's is written, overwritten or sent.
"""

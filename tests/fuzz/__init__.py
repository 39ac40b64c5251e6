"""Random damage to files, for every reader: nothing but a `DeixisError` on one line may come out.

    scripts/fuzz --minutes 10 --seed 1
    scripts/fuzz --count 200 --reader coco --reader voc

A module named in `frame.MODULES` holds `BUILDERS`, a name to a builder. A builder is a function

    build(folder: Path, random: random.Random) -> Callable[[], object]

that writes a small, valid input into an empty folder and returns what reads it. It may vary what it writes by `random`
and nothing else. `frame` then damages files of the folder (`damage`) and calls the returned function, all in a forked
process with limits of memory and time, so that a crash of compiled code is counted and the fuzzer goes on.
The returned function reads all there is: every sample, and every picture. One in ten inputs is left as it was written;
`test_fuzz.py` checks that each builder's own files are read.

What is counted: refused (a `DeixisError`), tracebacks (another exception, or a message that names no
file), signals (the process died), too long and too large (over the limits).
"""

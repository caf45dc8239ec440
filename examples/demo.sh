#!/bin/sh
# What `make demo` does: charrnn learns a word, then a book, writes, and is measured. Each command is shown before it runs.
# Runs that are there already are used again; none is ever removed.
set -eu
trap 'exit 130' INT

say() { printf '\n%s\n' "$*"; }
show() { printf '\n$ %s\n' "$*"; "$@"; }

say "1. The word hello: five letters, learnt by heart."
if [ -e checkpoints/hello/model.safetensors ]; then
    say "checkpoints/hello is there already and is used again."
else
    show charrnn train data/hello.txt
fi
show charrnn sample checkpoints/hello --prompt h --length 4 --temperature 0

say "2. A real text, with the defaults: three minutes."
if ! text=$(charrnn fetch time-machine 2>/dev/null); then
    say "The Time Machine cannot be fetched here (is there a network?): the documentation inside Python is the text instead."
    text=$(charrnn fetch python-docs)
fi
say "The text is $text."

# checkpoints/demo, or the next number where a run of another text has that name. An interrupted run is gone on with.
run=checkpoints/demo
number=1
while [ -e "$run" ]; do
    say "$run is there already: it is used again, and finished first if it was interrupted."
    if show charrnn train "$text" --out "$run" --resume; then break; fi
    say "It is left as it is, and the next number is taken."
    number=$((number + 1))
    run=checkpoints/demo-$number
done
[ -e "$run" ] || show charrnn train "$text" --out "$run"

say "3. What it writes: cautious, usual, wild."
for temperature in 0.5 0.8 1.1; do
    show charrnn sample "$run" --length 300 --temperature "$temperature" --seed 1
done

say "4. What is in the run, with the figures on the part of the text that was held out."
show charrnn inspect "$run"

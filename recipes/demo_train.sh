#!/bin/sh
# make demo-train: from a folder of books to a model that answers in herd chat, in the commands that a person would type.
#
#   recipes/demo_train.sh [BOOKS [FOLDER]]
#
# BOOKS is a folder of text files (recipes/data/books), FOLDER where everything goes (demo-train). Interrupt it at any
# time: the same command goes on with what is there. HERD names the command, FLAGS are added to both training runs.
set -eu
here=$(dirname "$0")
books=${1:-$here/data/books}
folder=${2:-demo-train}
herd=${HERD:-herd}
flags=${FLAGS:-}
began=$(date +%s)

say() { printf '\n== %s\n' "$*"; }
# The command as it could be typed, then what it does.
show() {
	line=$(basename "$1")
	shift
	for word in "$@"; do case $word in *[[:space:]]*) line="$line \"$word\"" ;; *) line="$line $word" ;; esac; done
	printf '\n$ %s\n' "$line"
}
run() { show "$@"; "$@"; }
# A step whose result is there already is left out.
make() { out=$1; shift; if [ -e "$out" ]; then printf '\n(%s is there)\n' "$out"; else run "$@"; fi; }

mkdir -p "$folder"

say "1. A vocabulary, learnt from the books"
make "$folder/tokenizer" "$herd" train tokenizer "$books" --out "$folder/tokenizer" --vocab-size 4096

say "2. The books as tokens, and one more book to measure on"
make "$folder/books" "$herd" train prepare "$books" --model "$folder/tokenizer" --out "$folder/books" \
	--evaluation "$here/data/books_held_out"
make "$folder/books_held_out" "$herd" train prepare "$here/data/books_held_out" --model "$folder/tokenizer" \
	--out "$folder/books_held_out"

say "3. A model from nothing: it learns to go on with the books"
# shellcheck disable=SC2086 (several flags in one variable)
run "$herd" train run "$here/pretrain-tiny.toml" --tokenizer "$folder/tokenizer" --train "$folder/books" \
	--evaluation "$folder/books_held_out" --out "$folder/pretrain" $flags
make "$folder/base" "$herd" train export "$folder/pretrain" "$folder/base" --type f32

say "4. What it has learnt: it goes on with a beginning"
run "$herd" run "$folder/base" -p "Once upon a time there was a" --max-tokens 60 --temperature 0.7 --seed 1

say "5. Conversations: it learns to answer, and only the answers"
run "$herd" train preview "$here/data/conversations.jsonl" --model "$folder/base" --rows 1
for part in conversations conversations_held_out; do
	make "$folder/$part" "$herd" train prepare "$here/data/$part.jsonl" --model "$folder/base" --out "$folder/$part"
done
# shellcheck disable=SC2086
run "$herd" train run "$here/sft-chat.toml" --init "$folder/base" --train "$folder/conversations" \
	--evaluation "$folder/conversations_held_out" --out "$folder/chat" $flags

say "6. One file with everything in it, compared with the trained model before it gets its name"
make "$folder/storyteller.gguf" "$herd" train export "$folder/chat" "$folder/storyteller.gguf"

say "7. A conversation"
questions='Hello!
Who are you?
Who wrote The Wind in the Willows?
Who is the Scarecrow?
What is a toad?
What is 3 plus 4?'
show "$herd" chat "$folder/storyteller.gguf"
printf '%s\n' "$questions" | while read -r question; do
	printf '> %s\n' "$question"
	printf '%s\n' "$question" | "$herd" chat "$folder/storyteller.gguf" --temperature 0 --max-tokens 60
done

say "Done in $((($(date +%s) - began) / 60)) minutes. Its curve: $folder/pretrain/report.html. Talk to it: herd chat $folder/storyteller.gguf"

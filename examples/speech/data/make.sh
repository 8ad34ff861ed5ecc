#!/bin/bash
# Synthesizes the spoken digits that ship with this example: data/digits.wav and data/digits.csv.
# Needs espeak-ng and a Rust toolchain. Every voice of the list HELD_OUT is used for testing only.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

WORDS=(zero one two three four five six seven eight nine)
ACCENTS=(en-us en-gb en-gb-x-rp en-us en-gb-scotland en-029 en-us-nyc en-gb-x-gbclan)
TRAINED=(f1 f2 f3 f5 m1 m2 m3 m4 m5 m8 klatt klatt3 klatt5 Alex Alicia Andrea Annie Denis Hugo
  Jacky Lee Marco Mario Nguyen Gene Henrique adam anika announcer boris caleb edward gustave iven2
  john max miguel pedro robert shelby)
HELD_OUT=(linda Michael zac quincy belinda travis f4 m7 Andy steph)

say() { # accent, voice, pitch, speed, take
  for digit in "${!WORDS[@]}"; do
    espeak-ng -v "$1+$2" -p "$3" -s "$4" -w "$folder/${digit}_$2_$5.wav" "${WORDS[$digit]}"
  done
}

index=0
for voice in "${TRAINED[@]}"; do
  say "${ACCENTS[$((index % ${#ACCENTS[@]}))]}" "$voice" $((25 + index * 17 % 50)) $((165 + index * 23 % 60)) 5
  index=$((index + 1))
done
for voice in "${HELD_OUT[@]}"; do
  say "${ACCENTS[$((index % 3))]}" "$voice" $((30 + index * 13 % 40)) $((170 + index * 29 % 50)) 0
  index=$((index + 1))
done

cd "$here/../../.."
cargo run --quiet --release -p impresario-speech --example pack -- "$folder" "$here"

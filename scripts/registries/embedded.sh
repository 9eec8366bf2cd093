# The embedded registry: a folder with one file per instance, without a server; sourced by demo.sh.
# shellcheck shell=bash
# shellcheck disable=SC2154 # demo.sh sets it

# registered: prints the number of instances in $folder.
registered() { find "$folder" -type f -name '*.json' ! -name '.*' | wc -l; }

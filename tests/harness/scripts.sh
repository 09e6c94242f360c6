#!/bin/sh
# Runs shellcheck over every shell script of the repository.
# usage: scripts.sh SOURCE-ROOT
set -eu
cd "$1"
command -v shellcheck >/dev/null || { echo "skipped: shellcheck is not installed" && exit 77; }
git ls-files >/dev/null 2>&1 || { echo "skipped: this is no git checkout" && exit 77; }
scripts=$(git ls-files | grep -E '\.sh$|^\.ci/run$')
# shellcheck disable=SC2086 # a list of names without spaces
shellcheck --severity=warning $scripts
echo "$scripts"

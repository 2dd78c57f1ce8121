#!/bin/sh
# Asks pyright how much of what the two packages offer is completely typed, as their users' tools see it.
set -eu
cd "$(dirname "$0")/.."
PATH=$PWD/.venv/bin:$PATH # pyright looks at the packages of the first `python`

# Not counted: classes made of Django's, which has no types.
check() { # check PACKAGE LEAST: percent; raise it when the score has risen, never lower it
    pyright --verifytypes "$1" --ignoreexternal --outputjson | python -c "
import json, sys
package, least = sys.argv[1:]
report = json.load(sys.stdin)['typeCompleteness']
symbols = [
    symbol
    for symbol in report['symbols']
    if symbol['isExported'] and not symbol['name'].startswith('celeriac.contrib.django.')
]
lacking = [symbol for symbol in symbols if not symbol['isTypeKnown'] or symbol['isTypeAmbiguous']]
score = 100 * (1 - len(lacking) / len(symbols))
print(f'pyright: {score:.2f} % of the public symbols of {package} are completely typed (at least {least})')
if score < float(least):
    for symbol in lacking:
        # What is 'partially unknown' is so because of another one in this list.
        notes = [note['message'] for note in symbol['diagnostics'] if 'partially' not in note['message']]
        if notes:
            print(symbol['name'], *notes, sep='\n    ')
    sys.exit(1)" "$1" "$2"
}

# What is missing of celeriac: four classes of click's, generic since 8.2 only.
check celeriac 99.9
check celery 100

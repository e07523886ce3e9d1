"""Break a cluster of real hanat processes on purpose and judge it by its packets.

The shape and the words are Jepsen's. A *lab* is a network of namespaces with three
*nodes* in it; *clients* generate operations and record each with its outcome; the
*nemesis* injects faults; *observers* record what crossed the wires; everything ends
up in one *history*, JSON lines with CLOCK_MONOTONIC times; *checkers*, pure
functions of the history, say valid, not valid or unknown, with evidence.

A black box: nothing here imports hanat, because an oracle must not share a bug with
what it judges. hanat is a command that is run, two files that are written and an
API that is asked; who holds an address is read from ARP, not from the API.
"""

// Package killtest has no code but its tests, which are about processes: a
// program that replicates is killed, with SIGKILL and at any moment, again and
// again, and goes on, or the program whose database it replicates is; two begin at
// once where one may; one is paused, others take over, and it wakes.
package killtest

// Package endtoend has no code but tests: they run the real binaries, both ends
// on one machine, and look at them only from outside. Tests of one part alone are
// beside that part.
package endtoend

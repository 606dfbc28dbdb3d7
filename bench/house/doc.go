// Package house has no code but tests: they hold the rules of this repository
// that a compiler does not know, each with its reason. Who may import whom, what
// the enclave binary links, how sources are written, that builds can be repeated,
// and that the service file says what it should.
package house

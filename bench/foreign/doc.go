// Package foreign has no code but tests: clients, apps and conformance suites that
// nobody here wrote meet the whole front, which runs in a process of its own. What
// the proxy does to single messages is tested beside it, in revproxy.
package foreign

// Package attestation says whether an attestation document of an AWS Nitro
// Enclave is genuine, expected, fresh, and bound to the connection at hand: four
// questions, four functions, four errors. It does not obtain documents (package
// nsm does, inside the enclave) and opens no connections (command attest does).
//
//	raw bytes ── Verifier.Verify ──► *Document    genuine?         ErrNotGenuine
//	*Document ── Policy.Check ─────► name         expected?        ErrNotExpected
//	*Document ── Freshness.Check ──► ok           fresh?           ErrNotFresh
//	*Document ── CheckBinding ─────► app key hash this connection? ErrNotThisConnection
//
// What is defended against whom, and where, is in THREAT_MODEL.md.
package attestation

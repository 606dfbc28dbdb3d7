// Package attestation says whether an attestation document of an AWS Nitro
// Enclave is genuine, expected, fresh, and bound to the connection at hand: four
// questions, four functions, four errors. It does not obtain documents (package
// nsm does, inside the enclave) and opens no connections (command attest does).
//
//	raw bytes ── Verifier.Verify ──► *Document    genuine?         ErrNotGenuine
//	*Document ── Policy.Check ─────► name         expected?        ErrNotExpected
//	*Document ── Freshness.Check ──► ok           fresh?           ErrNotFresh
//	*Document ── EndpointOf, Check ► Endpoint     this connection? ErrNotThisConnection
//
// What a document says is a Statement, and what an enclave answers with is
// Evidence: a document, and a path in a Tree where many clients share it.
// USER_DATA.md defines both.
//
// What is defended against whom, and where, is in THREAT_MODEL.md.
package attestation

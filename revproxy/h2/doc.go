// Package h2 serves HTTP/2 (RFC 9113) to clients in the place of net/http's own
// server, which starts a goroutine for every frame above 4 KiB and has each TLS
// record written by a system call of its own. Handlers notice no difference but what
// is listed below.
//
//	client ──► reader ──► frames ──► streams ──► a goroutine each: http.Handler
//	             │                      ▲              │ Write: one copy, into a chunk
//	             │ SETTINGS, PING,      │              ▼
//	             │ windows              │    chunks of each stream, HEADERS, control frames
//	             ▼                      │              │ whoever finds nobody sending sends once,
//	           closed by an error       │              ▼ then the writer takes over
//	                               RST_STREAM      a batch: at most batchSize of all streams in turn
//	                                                   │ whole chunks are whole TLS records
//	                                                   ▼
//	                                    TLS ──► Batched: one write(2) ──► client
//
// One goroutine reads a connection, one runs the handler of each stream, and one
// writes when there is more than the handlers send by themselves. A mutex guards
// what they share; nobody holds it while reading or writing.
//
// A stream goes through these states. It leaves the connection's table when both
// directions have ended, or at RST_STREAM, whichever comes first:
//
//	             HEADERS            END_STREAM from the client
//	(no entry) ─────────► open ───────────────────────────────► half-closed (remote)
//	                        │ our END_STREAM was sent,              │ our END_STREAM was sent
//	                        │ then RST_STREAM(NO_ERROR)             ▼
//	                        └─────────────────────────────────► (no entry)
//
// What it does not do: server push, priorities (RFC 9113 deprecates those of RFC 7540;
// those of RFC 9218 are ignored, all streams take turns), extended CONNECT (RFC 8441),
// Upgrade: h2c, http.CloseNotifier, and the timeouts ReadTimeout and WriteTimeout of
// http.Server, which would bound the whole of a request or answer.
//
// What a client can have us keep is bounded: answers of a connection by lendTotal, 2 MiB,
// and a chunk of 16 KiB for each stream; request bodies by the connection's window, 1 MiB;
// header lists by MaxHeaderBytes; control frames by maxPending; handlers by
// MaxConcurrentStreams, whatever was reset (CVE-2023-44487, CVE-2025-8671); and frames
// that bring nothing by maxVain. A connection without streams holds no chunk and
// has no writer: with TLS some 26 KB, of which 8 are the reader's stack and 8 are TLS's.
package h2

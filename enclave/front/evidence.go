package front

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/corridor-enclave/corridor/attestation"
	"github.com/corridor-enclave/corridor/attestation/issuer"
)

// exporterLabel names the value that binds to a connection (RFC 9266, section 2).
const exporterLabel = "EXPORTER-Channel-Binding"

// An Issuer makes evidence, as attestation/USER_DATA.md defines it.
type Issuer interface {
	// Fresh returns evidence that answers the nonce and names the exporter of the
	// connection, unless that is nil. It fails with issuer.ErrBusy where too many
	// wait.
	Fresh(ctx context.Context, nonce, exporter []byte) (attestation.Evidence, error)
	// Kept returns evidence without a nonce that may be a little old.
	Kept(ctx context.Context) (attestation.Evidence, error)
}

// accepts says whether the client has asked for a media type by name. Whoever
// takes anything gets what was there first: nitriding's documents, and text.
func accepts(r *http.Request, wanted string) bool {
	for _, header := range r.Header.Values("Accept") {
		for element := range strings.SplitSeq(header, ",") {
			if media, _, err := mime.ParseMediaType(element); err == nil && media == wanted {
				return true
			}
		}
	}
	return false
}

// An evidenceRequest is a valid query for evidence.
type evidenceRequest struct {
	nonce []byte // nil: none is asked for
	bound bool   // to the connection
}

func parseEvidenceRequest(rawQuery string) (q evidenceRequest, err error) {
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return q, errors.New("the query cannot be parsed")
	}
	for key, values := range query {
		switch {
		case len(values) > 1:
			return q, fmt.Errorf("%.32q is given more than once", key)
		case key == "nonce":
			q.nonce, err = hex.DecodeString(values[0])
			if n := len(q.nonce); err != nil || n < attestation.MinTreeNonce || n > attestation.MaxTreeNonce {
				return q, fmt.Errorf("the nonce is not %d to %d bytes in hexadecimal", attestation.MinTreeNonce, attestation.MaxTreeNonce)
			}
		case key == "binding" && values[0] == "tls-exporter":
			q.bound = true
		case key == "binding":
			return q, errors.New("the only binding is tls-exporter")
		default:
			return q, fmt.Errorf("%.32q is not known; there are nonce and binding", key)
		}
	}
	if q.bound && q.nonce == nil {
		return q, errors.New("a binding needs a nonce")
	}
	return q, nil
}

// evidence answers with a document in JSON, which many clients may share.
func (f *Front) evidence(w http.ResponseWriter, r *http.Request) {
	q, err := parseEvidenceRequest(r.URL.RawQuery)
	if err != nil {
		answer(w, http.StatusBadRequest, textType, err.Error()+"\n")
		return
	}
	var exporter []byte
	if q.bound {
		if exporter, err = r.TLS.ExportKeyingMaterial(exporterLabel, nil, attestation.ExporterSize); err != nil {
			answer(w, http.StatusBadRequest, textType, "this TLS connection has no exporter: use TLS 1.3\n")
			return
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), attestTimeout)
	defer cancel()
	var e attestation.Evidence
	if q.nonce == nil {
		e, err = f.cfg.Evidence.Kept(ctx)
	} else {
		e, err = f.cfg.Evidence.Fresh(ctx, q.nonce, exporter)
	}
	f.noteModule(r.Context(), err)
	switch {
	case errors.Is(err, issuer.ErrBusy):
		retryLater(w, http.StatusServiceUnavailable, moduleBusy)
	case err != nil:
		retryLater(w, http.StatusServiceUnavailable, moduleFailed)
	default:
		answer(w, http.StatusOK, jsonType, e.Encode())
	}
}

package startup

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/corridor-enclave/corridor/host/running"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

// A Given says what an enclave has confirmed.
type Given struct {
	SHA256 string `json:"sha256"` // in hexadecimal
}

// Handler answers POST with a configuration for the enclave {cid} of the path;
// ?port=N is another VSOCK port than Port. 503 says that no enclave waits, 502 that
// it has not confirmed, 400 that the request is wrong.
func Handler(t vsockconn.Transport, log *slog.Logger) http.Handler {
	return http.NewCrossOriginProtection().Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		to, content, err := read(w, r)
		if err != nil {
			say(w, http.StatusBadRequest, running.Answer{Mistakes: []string{err.Error()}})
			return
		}
		digest, err := Give(r.Context(), t, to, content)
		if err != nil {
			log.Warn("configuration of an app not given", "cid", uint32(to.CID), "by", running.By(r), "err", err)
			say(w, statusOf(err), running.Answer{Mistakes: []string{err.Error()}})
			return
		}
		given := Given{hex.EncodeToString(digest[:])}
		log.Info("configuration of an app given", "cid", uint32(to.CID), "by", running.By(r), "sha256", given.SHA256)
		say(w, http.StatusOK, given)
	}))
}

func statusOf(err error) int {
	switch {
	case errors.Is(err, ErrSize):
		return http.StatusBadRequest
	case errors.Is(err, ErrAbsent):
		return http.StatusServiceUnavailable
	}
	return http.StatusBadGateway
}

func read(w http.ResponseWriter, r *http.Request) (to vsockconn.Addr, content []byte, err error) {
	cid, err := strconv.ParseUint(r.PathValue("cid"), 10, 32)
	if err != nil || vsockconn.CID(cid) <= vsockconn.CIDHost || vsockconn.CID(cid) == vsockconn.CIDAny {
		return to, nil, errors.New("that is not the CID of an enclave")
	}
	port := uint64(Port)
	if text := r.URL.Query().Get("port"); text != "" {
		if port, err = strconv.ParseUint(text, 10, 32); err != nil {
			return to, nil, errors.New("that is not a VSOCK port")
		}
	}
	content, err = io.ReadAll(http.MaxBytesReader(w, r.Body, MaxSize))
	return vsockconn.Addr{CID: vsockconn.CID(cid), Port: uint32(port)}, content, err
}

func say(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // an error means that the client is gone
}

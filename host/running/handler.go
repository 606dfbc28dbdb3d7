package running

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
)

// maxBody bounds what a request may say, in bytes.
const maxBody = 1 << 20

// An Answer is what every request for a change is answered with.
type Answer struct {
	Revision string   `json:"revision,omitempty"` // in force now
	Changes  []Op     `json:"changes,omitempty"`
	Mistakes []string `json:"mistakes,omitempty"` // then nothing has changed
}

// A Listing is the configuration in force.
type Listing struct {
	Revision string              `json:"revision"`
	Settings map[string][]string `json:"settings"`
}

// Handler answers requests about the configuration:
//
//	GET   /v1/config          what is in force, with its revision as ETag
//	PATCH /v1/config          a JSON array of Ops: all are taken, or none
//	PUT   /v1/config          the text of a TOML file: it becomes what is in force
//	POST  /v1/config/reload   the file is read again, as on SIGHUP
//
// With ?dry-run a change is only tried. With If-Match it is made only if that is the
// revision in force (412). Mistakes are 422, or 400 if the request is none.
func (h *Host) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/config", h.list)
	mux.HandleFunc("PATCH /v1/config", func(w http.ResponseWriter, r *http.Request) {
		var ops []Op
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
		d.DisallowUnknownFields()
		if err := d.Decode(&ops); err != nil {
			h.answer(w, http.StatusBadRequest, Answer{Mistakes: []string{"not a JSON array of changes: " + err.Error()}})
			return
		}
		result, err := h.Apply(requestOf(r), ops)
		h.finish(w, result, err)
	})
	mux.HandleFunc("PUT /v1/config", func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			h.answer(w, http.StatusBadRequest, Answer{Mistakes: []string{err.Error()}})
			return
		}
		result, err := h.Replace(requestOf(r), text)
		h.finish(w, result, err)
	})
	mux.HandleFunc("POST /v1/config/reload", func(w http.ResponseWriter, r *http.Request) {
		result, err := h.Reload(requestOf(r))
		h.finish(w, result, err)
	})
	// A page in the operator's browser is not the operator.
	return http.NewCrossOriginProtection().Handler(mux)
}

func requestOf(r *http.Request) Request {
	return Request{
		By: By(r), If: strings.Trim(r.Header.Get("If-Match"), `"*`), DryRun: r.URL.Query().Has("dry-run"),
	}
}

// By says who sent a request, for the log.
func By(r *http.Request) string {
	if who, ok := r.Context().Value(whoKey{}).(string); ok {
		return who
	}
	return r.RemoteAddr
}

func (h *Host) list(w http.ResponseWriter, _ *http.Request) {
	s := h.State()
	w.Header().Set("ETag", `"`+s.Revision()+`"`)
	h.write(w, http.StatusOK, Listing{s.Revision(), s.Document})
}

// finish answers a request for a change.
func (h *Host) finish(w http.ResponseWriter, result Result, err error) {
	mistakes := &MistakeError{}
	switch {
	case err == nil:
		h.answer(w, http.StatusOK, Answer{Revision: result.Revision, Changes: result.Changes})
	case errors.As(err, &mistakes):
		h.answer(w, http.StatusUnprocessableEntity, Answer{Mistakes: mistakes.Mistakes()})
	case errors.Is(err, ErrRevision):
		h.answer(w, http.StatusPreconditionFailed, Answer{Mistakes: []string{err.Error()}})
	case errors.Is(err, ErrNoFile):
		h.answer(w, http.StatusConflict, Answer{Mistakes: []string{err.Error()}})
	default:
		h.answer(w, http.StatusServiceUnavailable, Answer{Mistakes: []string{err.Error()}})
	}
}

func (h *Host) answer(w http.ResponseWriter, status int, a Answer) {
	if a.Revision == "" {
		a.Revision = h.State().Revision()
	}
	w.Header().Set("ETag", `"`+a.Revision+`"`)
	h.write(w, status, a)
}

func (h *Host) write(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		h.log.Debug("API client did not take its answer", "err", err)
	}
}

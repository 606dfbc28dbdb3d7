package nsm

import (
	"encoding/hex"
	"errors"
	"testing"
)

// The requests as aws-nitro-enclaves-nsm-api's serde_cbor writes them.
func TestEncodeRequest(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		fields any
		want   string
	}{
		{name: describeNSM, want: "6b44657363726962654e534d"},
		{name: getRandom, want: "6947657452616e646f6d"},
		{name: describePCR, fields: indexFields{16}, want: "a16b4465736372696265504352a165696e64657810"},
		{name: extendPCR, fields: extendFields{16, []byte{1, 2}}, want: "a169457874656e64504352a265696e646578106464617461420102"},
		{name: lockPCR, fields: indexFields{16}, want: "a1674c6f636b504352a165696e64657810"},
		{name: lockPCRs, fields: rangeFields{17}, want: "a1684c6f636b50435273a16572616e676511"},
		{name: attestation, fields: attestationFields{Nonce: []byte{9}}, want: "a16b4174746573746174696f6ea369757365725f64617461f6656e6f6e636541096a7075626c69635f6b6579f6"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := encodeRequest(tt.name, tt.fields)
			if err != nil || hex.EncodeToString(got) != tt.want {
				t.Fatalf("got %x, %v; want %s", got, err, tt.want)
			}
		})
	}
}

// FuzzDecodeAnswer holds that an answer is taken, refused by the module, or
// malformed, and that one taken for a bare name is that name.
func FuzzDecodeAnswer(f *testing.F) {
	f.Add([]byte("\xa1\x69GetRandom\xa1\x66random\x41\x01"))
	f.Add([]byte("\xa1\x65Error\x6cInvalidIndex"))
	f.Add([]byte("\x67LockPCR"))
	f.Add([]byte("\xa1\x6bDescribeNSM\xa1\x6blocked_pcrs\x82\x00\x01"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		var code ErrorCode
		for _, into := range []any{&randomAnswer{}, &Description{}, &describePCRAnswer{}, nil} {
			for _, name := range []string{getRandom, describeNSM, describePCR, lockPCR} {
				err := decodeAnswer(name, answer, into)
				if err != nil && !errors.As(err, &code) && !errors.Is(err, ErrMalformedAnswer) {
					t.Fatalf("error of no kind: %v", err)
				}
				if err == nil && into == nil && string(answer[len(answer)-len(name):]) != name {
					t.Fatalf("% x was taken for %s", answer, name)
				}
			}
		}
	})
}

package nsm

import (
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// The messages, as aws-nitro-enclaves-nsm-api encodes them (serde, externally
// tagged). A request without fields is a text string; one with fields is a map
// of one entry. Answers are shaped alike, and a refusal is a map of one entry:
//
//	"GetRandom"                                  {"GetRandom": {"random": bytes}}
//	"DescribeNSM"                                {"DescribeNSM": {...}}
//	{"DescribePCR": {"index": 0}}                {"DescribePCR": {"lock": bool, "data": bytes}}
//	{"ExtendPCR": {"index": 16, "data": bytes}}  {"ExtendPCR": {"data": bytes}}
//	{"LockPCR": {"index": 16}}                   "LockPCR"
//	{"LockPCRs": {"range": 17}}                  "LockPCRs"
//	{"Attestation": {"user_data": bytes|null, "nonce": bytes|null,
//	                 "public_key": bytes|null}}  {"Attestation": {"document": bytes}}
//	any                                          {"Error": "InvalidIndex"}
const (
	describeNSM = "DescribeNSM"
	describePCR = "DescribePCR"
	extendPCR   = "ExtendPCR"
	lockPCR     = "LockPCR"
	lockPCRs    = "LockPCRs"
	getRandom   = "GetRandom"
	attestation = "Attestation"
	refusal     = "Error"
)

type indexFields struct {
	Index uint16 `cbor:"index"`
}

type extendFields struct {
	Index uint16 `cbor:"index"`
	Data  []byte `cbor:"data"`
}

type rangeFields struct {
	Range uint16 `cbor:"range"`
}

// A nil slice is encoded as null, which is how a field is left out.
type attestationFields struct {
	UserData  []byte `cbor:"user_data"`
	Nonce     []byte `cbor:"nonce"`
	PublicKey []byte `cbor:"public_key"`
}

type describePCRAnswer struct {
	Lock *bool  `cbor:"lock"`
	Data []byte `cbor:"data"`
}

type dataAnswer struct {
	Data []byte `cbor:"data"`
}

type randomAnswer struct {
	Random []byte `cbor:"random"`
}

type documentAnswer struct {
	Document []byte `cbor:"document"`
}

// answers decodes what a module says. Fields that are not known are skipped,
// because a later module may describe itself at greater length; everything else
// is as strict as for documents.
var answers = mustMode(cbor.DecOptions{
	DupMapKey:         cbor.DupMapKeyEnforcedAPF,
	IndefLength:       cbor.IndefLengthForbidden,
	TagsMd:            cbor.TagsForbidden,
	FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
	MaxNestedLevels:   8,
	MaxArrayElements:  1024,
	MaxMapPairs:       64,
})

func mustMode(o cbor.DecOptions) cbor.DecMode {
	mode, err := o.DecMode()
	if err != nil {
		panic("nsm: " + err.Error()) // the options above contradict each other
	}
	return mode
}

// encodeRequest builds a request; fields is nil for one that has none.
func encodeRequest(name string, fields any) ([]byte, error) {
	var message any = name
	if fields != nil {
		message = map[string]any{name: fields}
	}
	request, err := cbor.Marshal(message)
	if err != nil {
		return nil, fmt.Errorf("encode: %v", err)
	}
	if len(request) > MaxRequest {
		return nil, fmt.Errorf("%w: %d bytes, the limit is %d", ErrInput, len(request), MaxRequest)
	}
	return request, nil
}

// decodeAnswer stores the fields of the answer to the request called name in
// fields, which is nil when a bare name is the whole answer.
func decodeAnswer(name string, answer []byte, fields any) error {
	if len(answer) > MaxAnswer {
		return fmt.Errorf("%w: %d bytes, the limit is %d", ErrMalformedAnswer, len(answer), MaxAnswer)
	}
	if len(answer) > 0 && answer[0]>>5 == majorText {
		var got string
		if err := answers.Unmarshal(answer, &got); err != nil {
			return fmt.Errorf("%w: %v", ErrMalformedAnswer, err)
		}
		if got != name || fields != nil {
			return fmt.Errorf("%w: it is the bare text %.32q", ErrMalformedAnswer, got)
		}
		return nil
	}
	var entries map[string]cbor.RawMessage
	if err := answers.Unmarshal(answer, &entries); err != nil {
		return fmt.Errorf("%w: %v", ErrMalformedAnswer, err)
	}
	if len(entries) != 1 {
		return fmt.Errorf("%w: a map of %d entries", ErrMalformedAnswer, len(entries))
	}
	if code, refused := entries[refusal]; refused {
		return decodeRefusal(code)
	}
	body, ok := entries[name]
	if !ok || fields == nil {
		return fmt.Errorf("%w: it answers another request", ErrMalformedAnswer)
	}
	if err := answers.Unmarshal(body, fields); err != nil {
		return fmt.Errorf("%w: %v", ErrMalformedAnswer, err)
	}
	return nil
}

// majorText is the CBOR major type of text strings (RFC 8949, section 3.1).
const majorText = 3

func decodeRefusal(body []byte) error {
	var code string
	if err := answers.Unmarshal(body, &code); err != nil {
		return fmt.Errorf("%w: error code: %v", ErrMalformedAnswer, err)
	}
	const longest = 64 // far beyond any known code, and bounded for logs
	if code == "" || len(code) > longest {
		return fmt.Errorf("%w: error code of %d bytes", ErrMalformedAnswer, len(code))
	}
	for i := range len(code) {
		if code[i] <= ' ' || code[i] > '~' {
			return fmt.Errorf("%w: error code %q", ErrMalformedAnswer, code)
		}
	}
	return ErrorCode(code)
}

package azure

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/jurat-tls/jurat/attest"
)

// MetadataService is Azure's instance metadata service, which hands TDREPORTs to the host's quoting service.
const MetadataService = "http://169.254.169.254"

// QuoteThrough makes a QuoteTD that asks the metadata service at base. Nothing that it answers is trusted: a relying party
// verifies the quote.
func QuoteThrough(client *http.Client, base string) QuoteTD {
	return func(ctx context.Context, tdReport []byte) ([]byte, error) {
		body := `{"report":"` + base64.RawURLEncoding.EncodeToString(tdReport) + `"}`
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/acc/tdquote", strings.NewReader(body))
		if err != nil {
			return nil, err
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := client.Do(request)
		if err != nil {
			return nil, err
		}
		defer response.Body.Close()
		// An answer that is cut off, too long or no JSON holds no quote.
		raw, _ := io.ReadAll(io.LimitReader(response.Body, 2*attest.MaxRaw))
		var answer struct {
			Quote string `json:"quote"`
		}
		_ = json.Unmarshal(raw, &answer)
		quote, err := base64.RawURLEncoding.DecodeString(answer.Quote)
		if response.StatusCode != http.StatusOK || err != nil || len(quote) == 0 {
			return nil, fmt.Errorf("the metadata service answers %s with %d bytes, and no quote", response.Status, len(raw))
		}
		return quote, nil
	}
}

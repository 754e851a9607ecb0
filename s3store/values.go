package s3store

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

func parseBool(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "true", "t", "yes", "on", "1":
		return true, nil
	case "false", "f", "no", "off", "0":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither true nor false", s)
}

// escape makes a value fit for a URL's parameters, and leaves it readable.
func escape(value string) string {
	return strings.NewReplacer("%2F", "/", "%3A", ":").Replace(url.QueryEscape(value))
}

func parseCount(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > maxConcurrency {
		return 0, fmt.Errorf("%q is not a number from 1 to %d", s, maxConcurrency)
	}
	return n, nil
}

var sizeRE = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?([kmgKMG]?)(i?)[bB]?$`)

// parsePartSize reads a number of bytes, or of KB, MB, GB (1000), KiB, MiB, GiB
// (1024).
func parsePartSize(s string) (int64, error) {
	m := sizeRE.FindStringSubmatch(s)
	if m == nil || m[2] == "" && m[3] != "" {
		return 0, fmt.Errorf("%q is not a size, like 16MiB", s)
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a size, like 16MiB", s)
	}
	unit := 1000.0
	if m[3] != "" {
		unit = 1024
	}
	if m[2] != "" {
		n *= math.Pow(unit, float64(strings.Index("KMG", strings.ToUpper(m[2]))+1))
	}
	n = math.Round(n)
	if n < minPart || n > maxPart {
		return 0, fmt.Errorf("%q is not from 5MiB to 5GiB", s)
	}
	return int64(n), nil
}

func checkCustomerKey(s string) (string, error) {
	key, err := base64.StdEncoding.DecodeString(s)
	if err != nil || len(key) != 32 {
		return "", errors.New("must be 32 bytes in base64, as from: openssl rand -base64 32")
	}
	return s, nil
}

// checkStorageClass refuses what can't be read at once. Names differ between
// providers: the server has the last word.
func checkStorageClass(s string) error {
	switch {
	case strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") != "":
		return fmt.Errorf("%q is not a storage class, like STANDARD_IA", s)
	case strings.EqualFold(s, "GLACIER"), strings.EqualFold(s, "DEEP_ARCHIVE"):
		return fmt.Errorf("objects in %s can't be read without being fetched from the archive first, so nothing could be restored or continued: use STANDARD, STANDARD_IA, INTELLIGENT_TIERING or GLACIER_IR", s)
	}
	return nil
}

package s3store_test

import (
	"context"
	"fmt"
	"log"

	"github.com/aws/aws-sdk-go-v2/config"

	"github.com/outwash/outwash/s3store"
)

// A program that configures the AWS SDK itself hands its configuration over.
func ExampleNew() {
	cfg, err := config.LoadDefaultConfig(context.Background(), config.WithRegion("eu-central-1"))
	if err != nil {
		log.Fatal(err)
	}
	store, err := s3store.New(cfg, "backups", "shop/orders.db", s3store.Options{
		Concurrency: 4,
		Settings:    map[string]string{"snapshot-storage-class": "STANDARD_IA", "sse": "aws:kms"},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(store)
}

// Everything else is in the URL and the environment.
func ExampleOpen() {
	store, err := s3store.Open(context.Background(), "s3://backups/shop/orders.db?endpoint=minio.internal:9000&force-path-style=true", nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(store)
	// Output: s3://backups/shop/orders.db?endpoint=https://minio.internal:9000&force-path-style=true
}

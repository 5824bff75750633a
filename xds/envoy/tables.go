package envoy

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// message says what becomes of the fields of a message. A populated field that is in none of the three is an error: this
// is what keeps a demand from being left out without a word, also one that Envoy's API gets tomorrow.
type message struct {
	// The fields that the translation reads, and what is in them is looked at in turn. A field that can be carried out with some
	// values alone is here, too: whoever reads it refuses the others.
	handled string

	// The fields that mean nothing here: what they ask for is done in any case, is about Envoy's own machinery, or is about
	// telling of traffic, which the proxy's own file says.
	ignored string

	// The fields that are carried out in another way than Envoy does, by name, and how: notes of the translation.
	noted map[string]string
}

const (
	noteClient    = "what clients say of themselves is never believed, and what is known of them is always said"
	notePath      = "paths are always put into canonical form, and those with encoded slashes refused"
	noteKeepAlive = "no pings are sent on connections of HTTP/2"
)

// messages is by the full name of the message.
func messages() map[protoreflect.FullName]message {
	return map[protoreflect.FullName]message{
		// Clusters.
		"envoy.config.cluster.v3.Cluster": {
			handled: `name type cluster_type eds_cluster_config connect_timeout lb_policy load_balancing_policy
				load_assignment health_checks circuit_breakers http2_protocol_options
				typed_extension_protocol_options dns_refresh_rate dns_jitter dns_failure_refresh_rate
				dns_lookup_family typed_dns_resolver_config outlier_detection upstream_bind_config
				ring_hash_lb_config maglev_lb_config least_request_lb_config round_robin_lb_config common_lb_config
				transport_socket transport_socket_matches filters`,
			// ignore_health_on_host_removal is what is always done; keep-alives of TCP are the data plane's own.
			ignored: `alt_stat_name stats_matcher metadata per_connection_buffer_limit_bytes
				per_connection_buffer_high_watermark_timeout wait_for_warm_on_init cleanup_interval
				track_timeout_budgets track_cluster_stats lrs_server lrs_report_endpoint_metrics preconnect_policy
				upstream_connection_options ignore_health_on_host_removal`,
			noted: map[string]string{"respect_dns_ttl": "the system's resolver tells no TTL: dns_refresh_rate counts"},
		},
		"envoy.config.cluster.v3.Cluster.TransportSocketMatch": {handled: "match transport_socket", ignored: "name"},
		"envoy.config.cluster.v3.Cluster.CustomClusterType":    {handled: "typed_config", ignored: "name"},
		"envoy.config.cluster.v3.Cluster.EdsClusterConfig":     {handled: "eds_config service_name"},
		"envoy.config.cluster.v3.Cluster.RefreshRate":          {handled: "base_interval max_interval"},
		"envoy.config.cluster.v3.Cluster.RingHashLbConfig":     {handled: "minimum_ring_size maximum_ring_size", noted: map[string]string{"hash_function": "the ring has a hash of its own, the same in every proxy"}},
		"envoy.config.cluster.v3.Cluster.MaglevLbConfig":       {handled: "table_size"},
		"envoy.config.cluster.v3.Cluster.LeastRequestLbConfig": {handled: "choice_count"},
		"envoy.config.cluster.v3.Cluster.RoundRobinLbConfig":   {},
		"envoy.config.cluster.v3.Cluster.CommonLbConfig": {
			handled: "healthy_panic_threshold locality_weighted_lb_config",
			ignored: "update_merge_window",
		},
		"envoy.config.cluster.v3.Cluster.CommonLbConfig.LocalityWeightedLbConfig": {},
		"envoy.config.cluster.v3.CircuitBreakers":                                 {handled: "thresholds"},
		"envoy.config.cluster.v3.CircuitBreakers.Thresholds": {
			handled: "priority max_connections max_pending_requests max_requests max_retries retry_budget",
			ignored: "track_remaining",
		},
		"envoy.config.cluster.v3.CircuitBreakers.Thresholds.RetryBudget": {handled: "budget_percent min_retry_concurrency"},
		"envoy.config.cluster.v3.OutlierDetection": {
			handled: `consecutive_5xx interval base_ejection_time max_ejection_time max_ejection_percent
				consecutive_gateway_failure split_external_local_origin_errors consecutive_local_origin_failure
				success_rate_minimum_hosts success_rate_request_volume success_rate_stdev_factor
				enforcing_consecutive_5xx enforcing_consecutive_gateway_failure
				enforcing_consecutive_local_origin_failure enforcing_success_rate enforcing_failure_percentage`,
		},
		"envoy.config.cluster.v3.Filter":                                         {handled: "typed_config", ignored: "name"},
		"envoy.config.cluster.v3.LoadBalancingPolicy":                            {handled: "policies"},
		"envoy.config.cluster.v3.LoadBalancingPolicy.Policy":                     {handled: "typed_extension_config"},
		"envoy.config.core.v3.BindConfig":                                        {handled: "source_address"},
		"envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest": {handled: "choice_count locality_lb_config"},
		"envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin":     {handled: "locality_lb_config"},
		"envoy.extensions.load_balancing_policies.random.v3.Random":              {handled: "locality_lb_config"},
		"envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash": {
			handled: "minimum_ring_size maximum_ring_size locality_weighted_lb_config",
			noted:   map[string]string{"hash_function": "the ring has a hash of its own, the same in every proxy"},
		},
		"envoy.extensions.load_balancing_policies.maglev.v3.Maglev":                                    {handled: "table_size locality_weighted_lb_config"},
		"envoy.extensions.load_balancing_policies.cluster_provided.v3.ClusterProvided":                 {},
		"envoy.extensions.load_balancing_policies.common.v3.LocalityLbConfig":                          {handled: "locality_weighted_lb_config"},
		"envoy.extensions.load_balancing_policies.common.v3.LocalityLbConfig.LocalityWeightedLbConfig": {},
		"envoy.extensions.clusters.dns.v3.DnsCluster": {
			handled: `dns_refresh_rate dns_failure_refresh_rate dns_jitter dns_lookup_family
				all_addresses_in_single_endpoint typed_dns_resolver_config`,
			noted: map[string]string{"respect_dns_ttl": "the system's resolver tells no TTL: dns_refresh_rate counts"},
		},
		"envoy.extensions.clusters.dns.v3.DnsCluster.RefreshRate": {handled: "base_interval max_interval"},
		// How the system's resolver asks is the system's to say, but not whom another one would ask.
		"envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig": {
			ignored: `udp_max_queries query_timeout_seconds query_tries rotate_nameservers edns0_max_payload_size
				max_udp_channel_duration reinit_channel_on_timeout`,
		},
		"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
			handled: "common_http_protocol_options explicit_http_config use_downstream_protocol_config auto_config",
			noted:   map[string]string{"upstream_http_protocol_options": "names are those of the validator, the sni or the endpoint, never what a client asks for"},
		},
		"envoy.extensions.upstreams.http.v3.HttpProtocolOptions.ExplicitHttpConfig":      {handled: "http_protocol_options http2_protocol_options"},
		"envoy.extensions.upstreams.http.v3.HttpProtocolOptions.UseDownstreamHttpConfig": {handled: "http_protocol_options http2_protocol_options"},
		"envoy.extensions.upstreams.http.v3.HttpProtocolOptions.AutoHttpConfig":          {handled: "http_protocol_options http2_protocol_options"},

		// Endpoints.
		"envoy.config.endpoint.v3.ClusterLoadAssignment":        {handled: "cluster_name endpoints policy"},
		"envoy.config.endpoint.v3.ClusterLoadAssignment.Policy": {handled: "overprovisioning_factor"},
		"envoy.config.endpoint.v3.LocalityLbEndpoints":          {handled: "locality lb_endpoints load_balancing_weight priority metadata"},
		"envoy.config.endpoint.v3.LbEndpoint":                   {handled: "endpoint health_status metadata load_balancing_weight"},
		"envoy.config.endpoint.v3.Endpoint":                     {handled: "address hostname", ignored: "observability_name"},
		"envoy.config.core.v3.Locality":                         {handled: "region zone sub_zone"},
		// Metadata says which transport socket an endpoint gets, and nothing else that is looked at.
		"envoy.config.core.v3.Metadata":      {handled: "filter_metadata", ignored: "typed_filter_metadata"},
		"envoy.config.core.v3.Address":       {handled: "socket_address pipe"},
		"envoy.config.core.v3.SocketAddress": {handled: "protocol address port_value", ignored: "ipv4_compat"}, // [::] takes IPv4, too
		"envoy.config.core.v3.Pipe":          {handled: "path"},
		"envoy.config.core.v3.HealthCheck": {
			handled: `timeout interval interval_jitter unhealthy_interval unhealthy_threshold healthy_threshold
				http_health_check tcp_health_check grpc_health_check`,
			ignored: `name initial_jitter reuse_connection event_log_path event_logger event_service
				always_log_health_check_failures always_log_health_check_success`,
			noted: map[string]string{
				"no_traffic_interval": "checks go on at their interval", "no_traffic_healthy_interval": "checks go on at their interval",
				"interval_jitter_percent": "checks are not spread by a percentage", "unhealthy_edge_interval": "checks go on at their interval", "healthy_edge_interval": "checks go on at their interval",
			},
		},
		"envoy.config.core.v3.HealthCheck.HttpHealthCheck": {handled: "host path expected_statuses method codec_client_type"},
		"envoy.config.core.v3.HealthCheck.TcpHealthCheck":  {},
		"envoy.config.core.v3.HealthCheck.GrpcHealthCheck": {handled: "service_name authority"},

		// What several have in common.
		"envoy.config.core.v3.ConfigSource": {
			handled: "ads self api_config_source",
			ignored: "initial_fetch_timeout resource_api_version", // the client's business
		},
		"envoy.config.core.v3.AggregatedConfigSource": {},
		"envoy.config.core.v3.SelfConfigSource":       {ignored: "transport_api_version"},
		"envoy.config.core.v3.ApiConfigSource": {
			ignored: `api_type transport_api_version cluster_names grpc_services refresh_delay request_timeout
				rate_limit_settings set_node_on_first_message_only`,
		},
		"envoy.config.core.v3.TypedExtensionConfig": {handled: "typed_config", ignored: "name"},
		"envoy.config.core.v3.HttpProtocolOptions": {
			handled: "idle_timeout",
			ignored: "max_headers_count max_response_headers_kb",
			noted:   map[string]string{"headers_with_underscores_action": "names with underscores that could be taken for ours are removed, and others passed on"},
		},
		"envoy.config.core.v3.Http1ProtocolOptions": {
			handled: "",
			ignored: `allow_absolute_url accept_http_10 enable_trailers override_stream_error_on_invalid_http_message
				use_balsa_parser`,
		},
		"envoy.config.core.v3.Http2ProtocolOptions": {
			ignored: `hpack_table_size max_concurrent_streams initial_stream_window_size initial_connection_window_size
				max_outbound_frames max_outbound_control_frames max_consecutive_inbound_frames_with_empty_payload
				max_inbound_priority_frames_per_stream max_inbound_window_update_frames_per_data_frame_sent
				stream_error_on_invalid_http_messaging override_stream_error_on_invalid_http_message
				use_oghttp2_codec max_metadata_size enable_huffman_encoding max_header_field_size_kb
				disallow_obs_text stream_reset_burst stream_reset_rate`,
			noted: map[string]string{
				"allow_connect":        "for WebSocket it is always allowed, and for nothing else",
				"connection_keepalive": noteKeepAlive,
			},
		},
		"envoy.type.v3.Percent":                         {handled: "value"},
		"envoy.type.v3.FractionalPercent":               {handled: "numerator denominator"},
		"envoy.type.v3.Int64Range":                      {handled: "start end"},
		"envoy.config.core.v3.RuntimeFractionalPercent": {handled: "default_value", ignored: "runtime_key"}, // there is no runtime: the default counts
		"envoy.config.core.v3.DataSource":               {handled: "inline_bytes inline_string"},
		"envoy.config.core.v3.HeaderValue":              {handled: "key value raw_value"},
		"envoy.config.core.v3.HeaderValueOption":        {handled: "header append append_action keep_empty_value"},
		"envoy.config.core.v3.CidrRange":                {handled: "address_prefix prefix_len"},
		"envoy.type.matcher.v3.StringMatcher":           {handled: "exact prefix suffix safe_regex contains ignore_case"},
		"envoy.type.matcher.v3.RegexMatcher":            {handled: "regex", ignored: "google_re2"},
		"envoy.type.matcher.v3.RegexMatchAndSubstitute": {handled: "pattern substitution"},

		// How connections are made and taken.
		"envoy.config.core.v3.TransportSocket":                                                {handled: "typed_config name"},
		"envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer":                          {},
		"envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport": {handled: "config transport_socket"},
		"envoy.config.core.v3.ProxyProtocolConfig":                                            {handled: "version"},
		// Where there is a validator with EVIDENCE_ONLY, certificates and what they are compared with mean nothing, and TLS
		// is ours. Where there is none, the context is an error as a whole. What would give keys away (key_log), or do the
		// handshake otherwise, is one in any case.
		"envoy.extensions.transport_sockets.tls.v3.CommonTlsContext": {
			handled: `tls_params custom_tls_certificate_selector validation_context combined_validation_context
				validation_context_sds_secret_config`,
			ignored: `tls_certificates tls_certificate_sds_secret_configs tls_certificate_provider_instance
				tls_certificate_certificate_provider tls_certificate_certificate_provider_instance
				validation_context_certificate_provider validation_context_certificate_provider_instance
				alpn_protocols`,
		},
		"envoy.extensions.transport_sockets.tls.v3.CommonTlsContext.CombinedCertificateValidationContext": {
			handled: "default_validation_context validation_context_sds_secret_config",
			ignored: "validation_context_certificate_provider validation_context_certificate_provider_instance",
		},
		"envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext": {
			handled: "custom_validator_config",
			ignored: `trusted_ca ca_certificate_provider_instance system_root_certs watched_directory
				verify_certificate_spki verify_certificate_hash match_typed_subject_alt_names
				match_subject_alt_names require_signed_certificate_timestamp crl allow_expired_certificate
				trust_chain_verification only_verify_leaf_cert_crl max_verify_depth suppress_client_ca_list`,
		},
		"envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig": {handled: "name", ignored: "sds_config"},
		"envoy.extensions.transport_sockets.tls.v3.TlsParameters": {
			handled: "tls_maximum_protocol_version",
			ignored: "tls_minimum_protocol_version cipher_suites", // TLS 1.3 and its suites
			noted:   map[string]string{"ecdh_curves": "TLS 1.3 with the groups of Go", "signature_algorithms": "TLS 1.3 with the algorithms of Go"},
		},
		"envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext": {
			handled: "common_tls_context sni",
			ignored: "allow_renegotiation max_session_keys enforce_rsa_key_usage auto_sni_san_validation",
			noted:   map[string]string{"auto_host_sni": "without a name, that of the endpoint is what its evidence has to be for"},
		},
		"envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext": {
			handled: "common_tls_context require_client_certificate",
			ignored: `session_ticket_keys session_ticket_keys_sds_secret_config disable_stateless_session_resumption
				disable_stateful_session_resumption session_timeout ocsp_staple_policy
				full_scan_certs_on_sni_mismatch prefer_client_ciphers`,
		},
		"envoy.extensions.transport_sockets.tls.v3.Secret": {
			handled: "name validation_context",
			ignored: "tls_certificate session_ticket_keys generic_secret", // keys are the TEE's own
		},

		// Listeners.
		"envoy.config.listener.v3.Listener": {
			handled: `name address filter_chains use_original_dst default_filter_chain deprecated_v1 listener_filters
				transparent bind_to_port`,
			ignored: `stat_prefix stats_matcher per_connection_buffer_limit_bytes
				per_connection_buffer_high_watermark_timeout metadata drain_type tcp_fast_open_queue_length
				traffic_direction connection_balance_config reuse_port enable_reuse_port access_log tcp_backlog_size
				max_connections_to_accept_per_socket_event enable_mptcp ignore_global_conn_limit
				bypass_overload_manager tcp_keepalive`,
			noted: map[string]string{
				"listener_filters_timeout":             "the data plane's own time for the first bytes counts",
				"continue_on_listener_filters_timeout": "a connection whose first bytes are needed and do not come is closed",
			},
		},
		"envoy.config.listener.v3.Listener.DeprecatedV1": {handled: "bind_to_port"},
		"envoy.config.listener.v3.FilterChain":           {handled: "filter_chain_match filters transport_socket transport_socket_connect_timeout name", ignored: "metadata"},
		"envoy.config.listener.v3.FilterChainMatch": {
			handled: `destination_port prefix_ranges direct_source_prefix_ranges source_type source_prefix_ranges
				source_ports server_names transport_protocol application_protocols`,
		},
		"envoy.config.listener.v3.Filter":         {handled: "typed_config", ignored: "name"},
		"envoy.config.listener.v3.ListenerFilter": {handled: "typed_config filter_disabled", ignored: "name"},
		"envoy.config.listener.v3.ListenerFilterChainMatchPredicate": { // what is looked at is what chains ask about, whatever ports it is turned off for
			ignored: "or_match and_match not_match any_match destination_port_range",
		},
		"envoy.extensions.filters.listener.original_dst.v3.OriginalDst":     {},
		"envoy.extensions.filters.listener.http_inspector.v3.HttpInspector": {},
		"envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector": {
			ignored: `enable_ja3_fingerprinting enable_ja4_fingerprinting initial_read_buffer_size
				close_connection_on_client_hello_parsing_errors max_client_hello_size`,
		},
		"envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol": {ignored: "stat_prefix"},
		"envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy": {
			handled: "cluster weighted_clusters idle_timeout",
			ignored: `stat_prefix access_log access_log_flush_interval flush_access_log_on_connected access_log_options
				check_drain_close`,
		},
		"envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster":               {handled: "clusters"},
		"envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight": {handled: "name weight"},
		"envoy.extensions.filters.network.rbac.v3.RBAC": {
			handled: "rules",
			ignored: "stat_prefix shadow_rules shadow_matcher shadow_rules_stat_prefix enforcement_type delay_deny",
		},
		"envoy.config.rbac.v3.RBAC": {handled: "action policies"},
		// One policy is one too many: rules are refused as a whole.
		"envoy.config.rbac.v3.Policy": {ignored: "permissions principals condition checked_condition cel_config"},
		"envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager": {
			handled: `rds route_config http_filters stream_idle_timeout request_timeout request_headers_timeout
				common_http_protocol_options http_protocol_options http2_protocol_options upgrade_configs`,
			ignored: `stat_prefix server_name server_header_transformation tracing max_request_headers_kb drain_timeout
				drain_timeout_jitter delayed_close_timeout access_log access_log_flush_interval
				flush_access_log_on_new_request access_log_options generate_request_id preserve_external_request_id
				always_set_request_id_in_response request_id_extension proxy_100_continue
				represent_ipv4_remote_address_as_ipv4_mapped_ipv6 normalize_path merge_slashes
				stream_error_on_invalid_http_message strip_trailing_host_dot add_user_agent
				add_proxy_protocol_connection_state record_route_resolution_stats internal_address_config`,
			noted: map[string]string{
				"codec_type":                       "clients choose between HTTP/1.1 and HTTP/2",
				"use_remote_address":               noteClient,
				"xff_num_trusted_hops":             noteClient,
				"skip_xff_append":                  noteClient,
				"forward_client_cert_details":      noteClient,
				"set_current_client_cert_details":  noteClient,
				"scheme_header_transformation":     "the scheme is that of the connection",
				"path_with_escaped_slashes_action": notePath,
				"via":                              "no Via is added",
			},
		},
		"envoy.extensions.filters.network.http_connection_manager.v3.Rds":                                 {handled: "config_source route_config_name"},
		"envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter":                          {handled: "typed_config is_optional disabled", ignored: "name"},
		"envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.UpgradeConfig": {handled: "upgrade_type enabled"},
		"envoy.extensions.filters.http.router.v3.Router": {
			ignored: `dynamic_stats start_child_span upstream_log upstream_log_options suppress_envoy_headers
				suppress_grpc_request_failure_code_stats reject_connect_request_early_data`,
		},
		"envoy.extensions.filters.http.cors.v3.Cors":                {},
		"envoy.extensions.filters.http.health_check.v3.HealthCheck": {handled: "pass_through_mode headers"},
		"envoy.extensions.filters.http.fault.v3.HTTPFault":          {ignored: "disable_downstream_cluster_stats filter_metadata"},
		"envoy.extensions.filters.http.grpc_stats.v3.FilterConfig": {
			ignored: `emit_filter_state individual_method_stats_allowlist stats_for_all_methods enable_upstream_stats
				replace_dots_in_grpc_service_name`,
		},
		"envoy.extensions.filters.http.rbac.v3.RBAC": {
			handled: "rules",
			ignored: "rules_stat_prefix shadow_rules shadow_matcher shadow_rules_stat_prefix track_per_rule_stats",
		},
		"envoy.extensions.filters.http.rbac.v3.RBACPerRoute": {handled: "rbac"},

		// Routes.
		"envoy.config.route.v3.RouteConfiguration": {
			handled: `name virtual_hosts response_headers_to_add response_headers_to_remove request_headers_to_add
				request_headers_to_remove ignore_port_in_host_matching typed_per_filter_config`,
			ignored: "validate_clusters max_direct_response_body_size_bytes metadata",
		},
		"envoy.config.route.v3.VirtualHost": {
			handled: `name domains routes require_tls request_headers_to_add request_headers_to_remove
				response_headers_to_add response_headers_to_remove typed_per_filter_config retry_policy
				hedge_policy`,
			ignored: `virtual_clusters include_request_attempt_count include_attempt_count_in_response
				include_is_timeout_retry_header per_request_buffer_limit_bytes request_body_buffer_limit metadata`,
		},
		"envoy.config.route.v3.Route": {
			handled: `name match route redirect direct_response typed_per_filter_config request_headers_to_add
				request_headers_to_remove response_headers_to_add response_headers_to_remove`,
			ignored: "metadata decorator tracing per_request_buffer_limit_bytes stat_prefix request_body_buffer_limit",
		},
		"envoy.config.route.v3.RouteMatch": {
			handled: `prefix path safe_regex connect_matcher path_separated_prefix case_sensitive runtime_fraction headers
				query_parameters grpc`,
		},
		"envoy.config.route.v3.RouteMatch.ConnectMatcher":        {},
		"envoy.config.route.v3.RouteMatch.GrpcRouteMatchOptions": {},
		"envoy.config.route.v3.HeaderMatcher": {
			handled: `name exact_match safe_regex_match range_match present_match prefix_match suffix_match contains_match
				string_match invert_match treat_missing_header_as_empty`,
		},
		"envoy.config.route.v3.QueryParameterMatcher": {handled: "name string_match present_match"},
		"envoy.config.route.v3.RouteAction": {
			handled: `cluster weighted_clusters prefix_rewrite regex_rewrite host_rewrite_literal auto_host_rewrite
				timeout idle_timeout retry_policy request_mirror_policies hash_policy upgrade_configs
				max_grpc_timeout max_stream_duration hedge_policy`,
			ignored: "append_x_forwarded_host include_vh_rate_limits", // X-Forwarded-Host is always said
			noted:   map[string]string{"cluster_not_found_response_code": "a cluster that is not there answers 503"},
		},
		"envoy.config.route.v3.RouteAction.UpgradeConfig":     {handled: "upgrade_type enabled"},
		"envoy.config.route.v3.HedgePolicy":                   {handled: "initial_requests hedge_on_per_try_timeout"},
		"envoy.config.route.v3.RouteAction.MaxStreamDuration": {handled: "max_stream_duration grpc_timeout_header_max"},
		"envoy.config.route.v3.WeightedCluster":               {handled: "clusters total_weight", ignored: "runtime_key_prefix"},
		"envoy.config.route.v3.WeightedCluster.ClusterWeight": {
			handled: `name weight request_headers_to_add request_headers_to_remove response_headers_to_add
				response_headers_to_remove typed_per_filter_config`,
		},
		"envoy.config.route.v3.RetryPolicy": {
			handled: `retry_on num_retries per_try_timeout per_try_idle_timeout retry_host_predicate
				host_selection_retry_max_attempts retriable_status_codes retry_back_off`,
		},
		"envoy.config.route.v3.RetryPolicy.RetryHostPredicate":                 {handled: "name typed_config"},
		"envoy.config.route.v3.RetryPolicy.RetryBackOff":                       {handled: "base_interval max_interval"},
		"envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate": {},
		"envoy.config.route.v3.RouteAction.RequestMirrorPolicy": {
			handled: "cluster runtime_fraction", ignored: "trace_sampled",
			noted: map[string]string{"disable_shadow_host_suffix_append": "a copy has the authority of the request"},
		},
		"envoy.config.route.v3.RouteAction.HashPolicy":                      {handled: "header cookie connection_properties query_parameter terminal"},
		"envoy.config.route.v3.RouteAction.HashPolicy.Header":               {handled: "header_name"},
		"envoy.config.route.v3.RouteAction.HashPolicy.Cookie":               {handled: "name ttl path"},
		"envoy.config.route.v3.RouteAction.HashPolicy.ConnectionProperties": {handled: "source_ip"},
		"envoy.config.route.v3.RouteAction.HashPolicy.QueryParameter":       {handled: "name"},
		"envoy.config.route.v3.RedirectAction": {
			handled: `https_redirect scheme_redirect host_redirect port_redirect path_redirect prefix_rewrite
				regex_rewrite response_code strip_query`,
		},
		"envoy.config.route.v3.DirectResponseAction": {handled: "status body"},
	}
}

// opaque is extensions that are accepted unread, and why. None of them can change what is connected to, who is let in, or what
// is forwarded.
func opaque() map[string]string {
	return map[string]string{
		// Istio's, which are not among Envoy's own.
		"istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig": "chooses among ALPN ids of istio's for TLS to the service, of which our sessions offer none",
		"envoy.tcp.metadataexchange.config.MetadataExchange":        "labels for metrics, exchanged between proxies that agree on an ALPN id of istio's",
		"io.istio.http.peer_metadata.Config":                        "labels for metrics",
		"stats.PluginConfig":                                        "metrics",
		// Our own, which package api reads.
		"jurat.config.v1alpha1.AttestationValidator": "read by package api",
		"jurat.config.v1alpha1.AttestedIdentity":     "read by package api",
	}
}

// table is messages, ready to be asked.
type table struct {
	fields map[protoreflect.FullName]map[protoreflect.Name]verdict
	opaque map[string]string
}

// verdict is what becomes of a field.
type verdict struct {
	ignored bool
	note    string // of one that is carried out in another way; it is ignored, then
}

// rules is the table, made once: nobody changes it, and making it takes longer than reading a policy.
var rules = sync.OnceValue(newTable)

func newTable() *table {
	t := &table{fields: map[protoreflect.FullName]map[protoreflect.Name]verdict{}, opaque: opaque()}
	for name, m := range messages() {
		fields := map[protoreflect.Name]verdict{}
		for _, f := range strings.Fields(m.handled) {
			fields[protoreflect.Name(f)] = verdict{}
		}
		for _, f := range strings.Fields(m.ignored) {
			fields[protoreflect.Name(f)] = verdict{ignored: true}
		}
		for f, note := range m.noted {
			fields[protoreflect.Name(f)] = verdict{ignored: true, note: note}
		}
		t.fields[name] = fields
	}
	return t
}

// known are the fields of a message that are in the table and that there is no note about, in order.
func (t *table) known(name protoreflect.FullName) []string {
	var all []string
	for _, f := range slices.Sorted(maps.Keys(t.fields[name])) {
		if v := t.fields[name][f]; !v.ignored {
			all = append(all, string(f))
		}
	}
	return all
}

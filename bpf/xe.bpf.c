/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * xe: its VMs are drm_gpuvm's, and their ranges are told there. What drm_gpuvm cannot know is told
 * here: the asid, which faults name. Every ioctl that uses a VM finds it by xe_vm_lookup(), in the
 * process it belongs to, after its asid was given (drivers/gpu/drm/xe/xe_vm.c).
 */

static inline int on_xe_vm_lookup_exit(struct call *c)
{
	struct about a = old_vm();
	struct xe_vm *vm = (void *)c->ret;
	struct drm_device *drm;

	if (!vm || IS_ERR(vm))
		return 0;
	drm = READ(vm, gpuvm_drm);
	a.vm = (u64)INSIDE(vm, gpuvm);
	a.dev = drm ? READ(drm, dev) : NULL;
	a.provider = PROVIDER_GPUVM;
	a.client = READ(vm, usm_asid);
	vm_id(&a);
	return 0;
}

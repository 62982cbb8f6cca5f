; Reads every MSR in the ranges that exist and many CPUID leaves, writes MSRs with what was read, moves all ones into the
; control registers: #GP or not, all goes on.
%include "rom.inc"
main:   xor esi, esi
        call range
        mov esi, 0xc0000000
        call range
        mov esi, 0xc0010000
        call range
        mov esi, 0x40000000
        call range
        mov esi, 0x80000000
.leaf:  mov eax, esi
        xor ecx, ecx
        cpuid
        mov eax, esi
        and eax, 0x0fffffff
        mov ecx, esi
        cpuid
        inc esi
        cmp esi, 0x80000040
        jne .leaf
        mov eax, -1
        expect .cr4
        mov cr4, eax
        mov dword [resume], 0
.cr4:   expect .xcr
        mov eax, -1
        mov edx, -1
        xor ecx, ecx
        xsetbv
        mov dword [resume], 0
.xcr:   expect .dr
        mov eax, -1
        and eax, ~(1 << 13)                      ; without GD, which makes the next access to it a #DB
        mov dr7, eax
        mov dword [resume], 0
.dr:    xor eax, eax
        mov dr7, eax
        expect .done
        mov eax, 0x20000001                     ; NW without CD
        mov cr0, eax
        mov dword [resume], 0
.done:  say "went on"
        ret

range:  lea edi, [esi + 0x1100]                 ; from ESI
.msr:   expect .next
        mov ecx, esi
        rdmsr
        expect .next
        wrmsr
        mov dword [resume], 0
.next:  inc esi
        cmp esi, edi
        jne .msr
        ret
%include "end.inc"
